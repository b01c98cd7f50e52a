// Image classification: draw a picture, or choose a file.
import { probabilities, summary, truth } from "./classes.js";
import { el } from "./dom.js";
import { SIDE, drawing, paint } from "./drawing.js";

export { truth };

export function output([prediction], [{ pixels }]) {
  const element = el("div", {}, probabilities(prediction));
  if (pixels) {
    const canvas = el("canvas", { width: 112, height: 112, class: "seen", role: "img" });
    canvas.ariaLabel = "The picture in the model's resolution";
    paint(canvas.getContext("2d"), pixels, 112);
    element.append(el("h3", {}, "What the model sees"), canvas);
  }
  return { summary: summary(prediction), element };
}

/** Take files, and drawings if the model takes grey levels. */
export function input(example, send) {
  const canvas = el("canvas", {
    width: SIDE,
    height: SIDE,
    role: "img",
    "aria-label": "The picture",
  });
  const change = () => file.files[0] && choose(file.files[0]);
  const file = el("input", { type: "file", id: "file", accept: "image/*", change });
  const element = el("div", { dragover: (event) => event.preventDefault(), drop: dropped }, canvas);

  function dropped(event) {
    event.preventDefault();
    if (event.dataTransfer.files[0]) choose(event.dataTransfer.files[0]);
  }

  /** Send a file as it is: the server resizes it like those of training. */
  async function choose(chosen) {
    await show(chosen);
    const bytes = new Uint8Array(await chosen.arrayBuffer());
    send([{ image: btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")) }]);
  }

  async function show(blob) {
    const picture = await createImageBitmap(blob).catch(() => null); // browsers read fewer formats
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, SIDE, SIDE);
    delete canvas.dataset.drawn;
    if (!picture) return;
    const scale = SIDE / Math.max(picture.width, picture.height);
    const [width, height] = [picture.width * scale, picture.height * scale];
    context.imageSmoothingEnabled = scale < 4;
    context.drawImage(picture, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
  }

  if (example.pixels) element.append(...drawing(canvas, example.pixels, send));
  else show(new Blob([Uint8Array.from(atob(example.image), (letter) => letter.charCodeAt(0))]));
  element.append(el("label", { for: "file" }, "Choose a picture, or drop one here"), file);
  send([example]);
  return element;
}
