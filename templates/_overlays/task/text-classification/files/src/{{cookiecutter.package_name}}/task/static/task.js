// Text classification: type a text; the words that mattered are marked.
import { probabilities, summary, truth } from "./classes.js";
import { el } from "./dom.js";

export { truth };

const MOST = 60; // variants of a text in one request
const LEAST = 0.005; // of the probability, to be marked at all

/** Split a text into at most MOST runs of words, with the blanks around them. */
function runs(text) {
  const words = text.match(/\s*\S+\s*/g) ?? [];
  const size = Math.ceil(words.length / MOST);
  const starts = [...words.keys()].filter((index) => index % size === 0);
  return starts.map((start) => words.slice(start, start + size).join(""));
}

/** The text itself, then the text without each of its runs. */
function withVariants(text) {
  const parts = runs(text);
  const variants = parts.map((_, left) => parts.filter((_, index) => index !== left).join(""));
  return [text, ...variants].filter((variant) => variant.trim()).map((text) => ({ text }));
}

export function input(example, send) {
  const text = el("textarea", { id: "text", rows: 7, required: true, maxlength: 100_000 });
  text.value = example.text;
  const ask = (event) => {
    event?.preventDefault();
    send(withVariants(text.value));
  };
  const keydown = (event) =>
    event.key === "Enter" && (event.ctrlKey || event.metaKey) && ask(event);
  text.addEventListener("keydown", keydown);
  const buttons = el("div", { class: "row" }, el("button", { class: "primary" }, "Classify"));
  ask();
  return el("form", { submit: ask }, el("label", { for: "text" }, "Text"), text, buttons);
}

export function output(predictions, items) {
  const [prediction, ...without] = predictions;
  const element = el("div", {}, probabilities(prediction));
  if (prediction.truncated)
    element.append(
      el("p", { class: "hint" }, "The text is longer than the model reads: its end was left out."),
    );
  element.append(...marked(items[0].text, prediction, without));
  return { summary: summary(prediction), element };
}

/** The text with the words marked whose absence changes the probability of the predicted class. */
function marked(text, { label, probability }, without) {
  const parts = runs(text);
  if (parts.length < 2) return []; // nothing is left without the only word
  if (without.length !== parts.length)
    return [
      el(
        "p",
        { class: "hint" },
        "The server did not take the request that finds the words that mattered.",
      ),
    ];
  const effects = without.map(({ probabilities }) => probability - (probabilities[label] ?? 0));
  const strongest = Math.max(...effects.map(Math.abs));
  const words = parts.map((part, index) => {
    const effect = effects[index];
    if (Math.abs(effect) < Math.max(LEAST, 0.1 * strongest)) return part;
    const [word] = part.match(/\S(.*\S)?/s);
    const mark = el("mark", { class: effect > 0 ? "for" : "against", title: points(effect) }, word);
    mark.style.setProperty("--weight", `${10 + 40 * Math.abs(effect / strongest)}%`);
    const [before, after] = part.split(word);
    return [before, mark, after];
  });
  const order = [...effects.keys()].sort((a, b) => Math.abs(effects[b]) - Math.abs(effects[a]));
  const most = order.slice(0, 3).filter((index) => Math.abs(effects[index]) >= LEAST);
  const list = most.map((index) => `“${parts[index].trim()}” ${points(effects[index])}`).join(", ");
  const said = list
    ? `Filled words raise the probability of “${label}”, underlined ones lower it; found by leaving ` +
      `them out one after the other. Most: ${list}.`
    : `None alone: without any one of them, “${label}” stays as probable.`;
  return [
    el("h3", {}, "Words that mattered"),
    el("p", { class: "words" }, ...words.flat()),
    el("p", { class: "hint" }, said),
  ];
}

const points = (effect) => `${effect > 0 ? "+" : "−"}${(100 * Math.abs(effect)).toFixed(1)} points`;
