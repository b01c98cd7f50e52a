// What the pages of classifiers share: probabilities as bars, the true class as feedback.
import { bars, el, percent } from "./dom.js";

const MOST = 10; // classes that are drawn; more of them: the most probable

export const summary = ({ label, probability }) => `${label}, ${percent(probability)}`;

/** Draw the probabilities: few classes in the model's order, of many the most probable. */
export function probabilities(prediction) {
  let rows = Object.entries(prediction.probabilities);
  if (rows.length > MOST) rows = rows.sort((a, b) => b[1] - a[1]).slice(0, MOST);
  return bars(
    rows.map(([name, share]) => [name, share, percent(share)]),
    "Probability of each class",
  );
}

/** The field for the true class. */
export function truth(prediction) {
  const names = Object.keys(prediction.probabilities);
  const options = names.map((name) => el("option", { value: name }, name));
  const select = el(
    "select",
    { id: "label", required: true },
    el("option", { value: "" }, "choose …"),
  );
  select.append(...options);
  const element = el("div", {}, el("label", { for: "label" }, "The true class"), select);
  return { element, read: () => (select.value ? { label: select.value } : null) };
}
