// Start the live figures of a page, each when it comes into view. Without scripts their places hold a description.
const watch = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    watch.unobserve(target);
    show(target);
  }
}, { rootMargin: "300px" });
for (const home of document.querySelectorAll("[data-figure]")) watch.observe(home);

/** @param {HTMLElement} home */
async function show(home) {
  const described = [...home.childNodes];
  const note = Object.assign(document.createElement("p"), { className: "loading", textContent: "The network is loading …" });
  home.append(note);
  try {
    const { figure } = await import(`./${home.dataset.figure}.js`);
    const built = await figure();
    home.replaceChildren(...built);
    home.dataset.ready = "";
  } catch (error) {
    home.replaceChildren(...described);
    home.append(Object.assign(document.createElement("p"), { className: "failed", textContent: `The live figure could not start. ${error instanceof Error ? error.message : error}` }));
  }
}
