// Forecasting: the recent past and the forecast with its interval, as a chart.
import { chart } from "./chart.js";
import { el, number } from "./dom.js";

const SHOWN = 5; // times as much history as forecast is drawn, at most

const numbers = (text) =>
  text
    .split(/[\s,;]+/)
    .filter(Boolean)
    .map(Number);

export function input(example, send) {
  const values = el("textarea", { id: "values", rows: 9, required: true, inputmode: "decimal" });
  const restore = () => (values.value = example.values.join(" "));
  const length = example.times.length;

  function ask(event) {
    event?.preventDefault();
    const given = numbers(values.value);
    const problem = given.some(Number.isNaN)
      ? "Only numbers, with decimal points."
      : given.length < length && `${given.length} values; the forecast needs the last ${length}.`;
    values.setCustomValidity(problem || "");
    if (values.reportValidity()) send([{ ...example, values: given.slice(-length) }]);
  }

  values.oninput = () => values.setCustomValidity("");
  restore();
  ask();
  const back = el("button", { type: "button", click: () => ask(restore()) }, "Back to the example");
  const hint =
    `Paste at least ${length} numbers, the newest last; they take the place of the example's, whose ` +
    `times ${Object.keys(example.covariates ?? {}).length ? "and covariates " : ""}stay.`;
  return el(
    ...["form", { submit: ask, novalidate: true }],
    el("label", { for: "values" }, example.target ?? "Recent values"),
    ...[values, el("p", { class: "hint" }, hint)],
    el("div", { class: "row" }, el("button", { class: "primary" }, "Forecast"), back),
  );
}

export function output([{ times, p10, p50, p90 }], [item]) {
  const first = Math.max(0, item.times.length - SHOWN * times.length);
  const past = { times: item.times.slice(first), values: item.values.slice(first) };
  const [low, high] = [Math.min(...p50), Math.max(...p50)];
  return {
    summary: `${number(low)} to ${number(high)} in the next ${times.length} steps`,
    element: chart(past, { times, low: p10, middle: p50, high: p90 }),
  };
}

/** The field for what the values turned out to be. */
export function truth() {
  const field = el("input", { id: "actual", required: true, placeholder: "12.5 13 11.75" });
  const label = el("label", { for: "actual" }, "Actual values of the first steps");
  field.oninput = () => field.setCustomValidity("");
  const read = () => {
    const values = numbers(field.value);
    field.setCustomValidity(values.some(Number.isNaN) ? "Only numbers, with decimal points." : "");
    return field.reportValidity() ? { values } : null;
  };
  return { element: el("div", {}, label, field), read };
}
