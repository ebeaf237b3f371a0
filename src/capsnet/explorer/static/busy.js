// Whether anything is still on its way: a question at the server, a change that has not been drawn.
// The page says so on <html data-busy>, for whoever works it by program: tests, screenshots, measurements.

let pending = 0;

/** Something has begun that will change the page. Each beginning has one `finished`. */
export function started() {
  pending += 1;
  document.documentElement.dataset.busy = "";
}

/** Not at once: whoever waited for this may begin the next thing with the answer. */
export function finished() {
  window.setTimeout(() => {
    pending -= 1;
    if (pending === 0) delete document.documentElement.dataset.busy;
  });
}
