// Create elements in one expression, and format numbers.

/**
 * @param {string} tag
 * @param {Record<string, unknown>} properties attributes; `on…` are listeners, `--…` are CSS variables
 * @param {...(Node | string | number | null | undefined | false | Array<Node | string>)} children
 * @returns {HTMLElement}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  fill(element, properties, children);
  return element;
}

/**
 * Create an SVG element.
 * @param {string} tag
 * @param {Record<string, unknown>} properties
 * @param {...(Node | string | number | null | undefined | false | Array<Node | string>)} children
 * @returns {SVGElement}
 */
export function svg(tag, properties = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  fill(element, properties, children);
  return element;
}

/**
 * @param {HTMLElement | SVGElement} element
 * @param {Record<string, unknown>} properties
 * @param {unknown[]} children
 */
function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else if (name.startsWith("--")) element.style.setProperty(name, String(value));
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/** @param {Element} element @param {...(Node | string)} children */
export function replace(element, ...children) {
  element.replaceChildren(...children);
}

/** @param {string} selector @returns {HTMLElement} */
export function find(selector) {
  const element = document.querySelector(selector);
  if (!(element instanceof HTMLElement)) throw new Error(`the page has no ${selector}`);
  return element;
}

/** @param {number} value @param {number} [digits] */
export function number(value, digits = 3) {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** @param {number} share @param {number} [digits] */
export function percent(share, digits = 1) {
  return `${(share * 100).toFixed(digits)} %`;
}

/**
 * A labelled slider.
 * @param {{label: string | Node, min: number, max: number, step: number, value: number, unit?: string, digits?: number, id?: string,
 *          oninput: (value: number) => void, title?: string}} options
 */
export function slider({ label, min, max, step, value, unit = "", digits = 2, oninput, title, id }) {
  const show = (/** @type {number} */ x) => `${number(x, digits)}${unit}`;
  const output = h("output", {}, show(value));
  const range = /** @type {HTMLInputElement} */ (
    h("input", {
      type: "range", min, max, step, value, id,
      "aria-label": typeof label === "string" ? label : (label.textContent ?? ""),
      oninput: () => {
        output.textContent = show(range.valueAsNumber);
        oninput(range.valueAsNumber);
      },
    })
  );
  const element = h("label", { class: "slider", title }, h("span", {}, label), range, output);
  return {
    element,
    /** @param {number} x */
    set(x) {
      if (document.activeElement !== range || Math.abs(range.valueAsNumber - x) > step) range.value = String(x);
      output.textContent = show(x);
    },
  };
}
