// Elements and numbers, for the page and the task's part of it.

export const get = (id) => document.getElementById(id);

/** Create an element. Functions among the attributes are listeners, `true` sets one without value. */
export function el(tag, attributes = {}, ...children) {
  const svg = tag.startsWith("svg:");
  const element = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false && value != null)
      element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

export const number = (value, digits = 4) =>
  value.toLocaleString("en", { maximumSignificantDigits: digits });

/** A list of bars: `rows` are [name, share of the full width 0..1, text, further elements…]. */
export function bars(rows, label) {
  const list = el("ol", { class: "bars", "aria-label": label });
  const longest = Math.max(...rows.map(([, share]) => share));
  for (const [name, share, text, ...more] of rows) {
    const fill = el("span", { class: "fill" });
    fill.style.inlineSize = `${100 * share}%`; // by the CSSOM: the policy forbids style attributes
    const track = el("span", { class: "track", "aria-hidden": "true" }, fill);
    const best = share === longest ? "best" : "";
    list.append(
      el(
        "li",
        { class: best },
        el("span", { class: "name" }, name),
        track,
        el("span", { class: "share" }, text),
        ...more,
      ),
    );
  }
  return list;
}
