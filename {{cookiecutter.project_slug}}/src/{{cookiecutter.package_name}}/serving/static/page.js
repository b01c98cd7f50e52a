// The page to try the model. It talks to the public API only, by relative addresses.
//
// The task's part, task.js, exports
//   input(item, send)    the form, an element, that starts with the item of the bundle's example;
//                        calls send(items): the first is what is asked, others help to explain it
//   output(predictions, items, send)
//                        { summary, element }: the result, as a sentence and drawn
//   truth(prediction)    { element, read }: a labelled field of feedback; read() returns the ground
//                        truth as JSON, or null if the field is empty
import { call, forgetKey } from "./api.js";
import { el, get, number } from "./dom.js";
import * as task from "./task.js";

let newest = 0; // number of the latest request: only its answer is shown

function showError(error) {
  get("error").textContent = error.message;
  get("error").hidden = false;
}

/** Ask for predictions and show them, unless something newer has been asked meanwhile. */
async function send(items) {
  const mine = ++newest;
  const id = `page-${[...crypto.getRandomValues(new Uint32Array(3))].map((n) => n.toString(36)).join("")}`;
  get("answer").setAttribute("aria-busy", "true");
  try {
    const result = await call("v1/predict", { items }, { "x-request-id": id });
    if (mine !== newest) return;
    get("error").hidden = true;
    get("answer").hidden = false;
    show(items, result);
  } catch (error) {
    if (mine !== newest) return;
    if (items.length > 1 && [413, 422].includes(error.status)) return send(items.slice(0, 1));
    get("answer").hidden = true;
    showError(error);
  } finally {
    get("answer").removeAttribute("aria-busy");
  }
}

function show(items, { answer, headers, milliseconds }) {
  const { summary, element } = task.output(answer.predictions, items, send);
  get("summary").textContent = summary;
  const buttons = () => [...get("output").querySelectorAll("button")];
  const focused = buttons().indexOf(document.activeElement);
  get("output").replaceChildren(element);
  buttons()[focused]?.focus(); // the keyboard stays where it was
  const [, model] = (headers.get("server-timing") ?? "").match(/[\d.]+/g) ?? [];
  const parts = [
    `${number(milliseconds, 2)} ms round trip`,
    model && `${number(Number(model), 2)} ms in the model`,
    items.length > 1 && `${items.length} items`,
    `version ${answer.model_version}, ${headers.get("x-model-variant")}`,
  ];
  get("timing").textContent = parts.filter(Boolean).join(" · ");
  const json = (value) => JSON.stringify(value, null, 1).replace(/\n\s*(?=[-\d.\]])/g, " ");
  const cut = (text) => (text.length > 2000 ? `${text.slice(0, 2000)} …` : text);
  get("exchange").textContent = `POST /v1/predict\n${cut(json({ items }))}\n\n${cut(json(answer))}`;
  if (document.body.dataset.feedback === "yes") askForTruth(answer);
}

/** Offer the feedback form for an answer. */
function askForTruth({ request_id, predictions }) {
  const { element, read } = task.truth(predictions[0]);
  get("truth").replaceChildren(element, el("button", {}, "Send feedback"));
  get("thanks").textContent = "";
  get("feedback").hidden = false;
  get("feedback").onsubmit = async (event) => {
    event.preventDefault();
    const truth = read();
    if (truth === null) return;
    try {
      await call("v1/feedback", { feedback: [{ request_id, truth }] });
      get("thanks").textContent = "Thank you, your feedback was recorded.";
    } catch (error) {
      get("thanks").textContent = `Not recorded: ${error.message}`;
    }
  };
}

async function start() {
  get("docs").hidden = document.body.dataset.docs !== "yes";
  get("forget").onclick = forgetKey;
  const { models, problem } = (await call("v1/models")).answer;
  const example = (await call("v1/example")).answer;
  const [champion] = models;
  document.title = get("model").textContent = champion.name;
  const made = new Date(champion.created_at).toLocaleDateString("en-GB", { dateStyle: "long" });
  const others = models.slice(1).map((model) => `${model.variant} ${model.version}`);
  const facts = [
    champion.task,
    `version ${champion.version}`,
    `made on ${made}`,
    ...others,
    problem,
  ];
  get("version").textContent = facts.filter(Boolean).join(" · ");
  for (const [name, value] of Object.entries(champion.metrics))
    get("metrics").append(el("div", {}, el("dt", {}, name), el("dd", {}, number(value))));
  get("input").replaceChildren(task.input(example.items[0], send));
}

start().catch(showError);
