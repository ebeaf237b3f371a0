// Whether something is pending: a request to the server, or a change that is not drawn yet.
// Programs that control the page (tests, screenshots, measurements) read it from <html data-busy>.

let pending = 0;

/** Report the start of work that will change the page. Each call needs one call of `finished`. */
export function started() {
  pending += 1;
  document.documentElement.dataset.busy = "";
}

/** Report the end of work, with a delay: the code that waited for it may start more work first. */
export function finished() {
  window.setTimeout(() => {
    pending -= 1;
    if (pending === 0) delete document.documentElement.dataset.busy;
  });
}
