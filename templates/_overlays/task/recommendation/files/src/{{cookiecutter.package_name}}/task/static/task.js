// Recommendation: pick the items that a user has; more can be picked among those recommended.
import { call } from "./api.js";
import { bars, el, percent } from "./dom.js";

const COUNT = 10;
const picked = new Map(); // titles by id or name
const known = el("datalist", { id: "known" });
const chips = el("ul", { class: "chips", "aria-label": "Items that the user has" });
let ask; // for recommendations to what is picked

export function input(example, send) {
  const field = el("input", { id: "name", list: "known", autocomplete: "off" });
  field.addEventListener("focus", suggestPopular, { once: true });
  ask = () => {
    chips.replaceChildren(...Array.from(picked, ([id, title]) => chip(id, title)));
    send([{ items: [...picked.keys()], k: COUNT }]);
  };
  const add = (event) => {
    event.preventDefault();
    if (field.value.trim()) pick(field.value.trim());
    field.value = "";
  };

  function chip(id, title) {
    const remove = () => {
      picked.delete(id);
      ask();
      field.focus();
    };
    return el(
      "li",
      {},
      el("button", { type: "button", click: remove, "aria-label": `Remove ${title}` }, title, " ×"),
    );
  }

  for (const item of example.items) picked.set(String(item), String(item));
  ask();
  return el(
    ...["form", { submit: add }],
    el("label", { for: "name" }, "Add an item, by name or id"),
    el("div", { class: "row" }, field, el("button", {}, "Add")),
    ...[known, el("h3", {}, "Items that the user has"), chips],
    el("p", { class: "hint" }, "Without any item, the most popular ones are recommended."),
  );
}

function pick(id, title = id) {
  picked.set(id, title);
  ask();
}

export function output([{ items, unknown, fallback }]) {
  suggest(items);
  const highest = Math.max(...items.map(({ score }) => score));
  const rows = items.map(({ item, title, score }) => {
    const name = title ?? item;
    const add = el("button", { type: "button", "aria-label": `Add ${name}` }, "Add");
    add.onclick = () => pick(item, name);
    return [name, score / highest, percent(score, 2), add];
  });
  const element = el("div", {}, bars(rows, "Recommended items and their scores"));
  if (unknown.length)
    element.append(
      el("p", { class: "hint" }, `Not known to the model and ignored: ${unknown.join(", ")}.`),
    );
  const best = items.slice(0, 3).map(({ item, title }) => title ?? item);
  return {
    summary: `${fallback ? "Most popular: " : ""}${best.join(", ") || "nothing is left"}`,
    element,
  };
}

/** Offer the most popular items while typing; they are recommended to a user without any. */
async function suggestPopular() {
  const { answer } = await call("v1/predict", { items: [{ items: [], k: 100 }] });
  suggest(answer.predictions[0].items);
}

function suggest(items) {
  for (const { item, title } of items) {
    const value = title ?? item;
    if (![...known.options].some((option) => option.value === value))
      known.append(el("option", { value }));
  }
}

/** The field for the item that the user chose. */
export function truth({ items }) {
  const select = el(
    "select",
    { id: "chosen", required: true },
    el("option", { value: "" }, "choose …"),
  );
  select.append(...items.map(({ item, title }) => el("option", { value: item }, title ?? item)));
  const element = el("div", {}, el("label", { for: "chosen" }, "The item chosen next"), select);
  return { element, read: () => (select.value ? { items: [select.value] } : null) };
}
