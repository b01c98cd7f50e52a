// Draw with mouse, finger, pen or keyboard, and make the drawing as large as the example.
import { el } from "./dom.js";

export const SIDE = 280; // of the canvas, in its own pixels
const STEP = 14; // by which an arrow key moves the pen
const MOVES = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
  " ": [0, 0],
};
const HINT = "Draw here. By keyboard: arrow keys move the pen, Space lowers and lifts it.";

/** Let people draw on the canvas, which shows the example; return what goes below it. */
export function drawing(canvas, example, send) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const border = [...example[0], ...example.at(-1)];
  const paper = border.reduce((sum, level) => sum + level, 0) > border.length / 2 ? 1 : 0;
  const pen = { x: SIDE / 2, y: SIDE / 2, down: false };
  const status = el("p", { class: "hint", role: "status" });

  function clear() {
    context.fillStyle = paper ? "#fff" : "#000";
    context.fillRect(0, 0, SIDE, SIDE);
    context.strokeStyle = paper ? "#000" : "#fff";
    context.lineWidth = SIDE * (0.06 + 0.9 / example.length);
    context.lineCap = context.lineJoin = "round";
    delete canvas.dataset.drawn;
  }

  function moveTo(x, y) {
    const [left, top] = [pen.x, pen.y];
    Object.assign(pen, { x: Math.min(Math.max(x, 0), SIDE), y: Math.min(Math.max(y, 0), SIDE) });
    if (!pen.down) return;
    if (!canvas.dataset.drawn) clear();
    canvas.dataset.drawn = "yes"; // it shows no example or file
    context.beginPath();
    context.moveTo(left, top);
    context.lineTo(pen.x, pen.y);
    context.stroke();
  }

  function lift() {
    pen.down = false;
    if (canvas.dataset.drawn) send([{ pixels: shrink(canvas, context, example, paper) }]);
  }

  const pointed = ({ offsetX, offsetY }) =>
    [offsetX, offsetY].map((at) => (at * SIDE) / canvas.clientWidth);
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    pen.down = false;
    moveTo(...pointed(event));
    pen.down = true;
    moveTo(...pointed(event));
  };
  canvas.onpointermove = (event) => pen.down && event.buttons && moveTo(...pointed(event));
  canvas.onpointerup = lift;
  canvas.onkeydown = (event) => {
    const move = MOVES[event.key];
    if (!move) return;
    event.preventDefault();
    if (event.key === " " && pen.down) lift();
    else {
      if (event.key === " ") pen.down = true;
      moveTo(pen.x + STEP * move[0], pen.y + STEP * move[1]);
    }
    status.textContent = `Pen ${pen.down ? "down" : "up"} at ${pen.x}, ${pen.y} of ${SIDE}`;
  };
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", HINT);
  clear();
  paint(context, example, SIDE);
  const button = el("button", { type: "button", click: clear }, "Clear");
  return [el("p", { class: "hint" }, HINT), status, el("div", { class: "row" }, button)];
}

/** Paint grey levels as squares. */
export function paint(context, rows, side) {
  const cell = side / Math.max(rows.length, rows[0].length);
  rows.forEach((row, y) =>
    row.forEach((level, x) => {
      context.fillStyle = `rgb(${[level, level, level].map((value) => 255 * value)})`;
      context.fillRect(x * cell, y * cell, cell, cell);
    }),
  );
}

/** Return the drawing's grey levels in the example's size, its ink where the example's is. */
function shrink(canvas, context, example, paper) {
  const [height, width] = [example.length, example[0].length];
  const from = inkBox(greyLevels(context, SIDE, SIDE), paper);
  const to = inkBox(example, paper);
  const scale = Math.max(to.width, to.height) / Math.max(from.width, from.height);
  const small = new OffscreenCanvas(width, height).getContext("2d");
  small.fillStyle = paper ? "#fff" : "#000";
  small.fillRect(0, 0, width, height);
  small.imageSmoothingQuality = "high";
  const [w, h] = [from.width * scale, from.height * scale];
  const [x, y] = [to.x + (to.width - w) / 2, to.y + (to.height - h) / 2];
  small.drawImage(canvas, from.x, from.y, from.width, from.height, x, y, w, h);
  return greyLevels(small, width, height);
}

function greyLevels(context, width, height) {
  const { data } = context.getImageData(0, 0, width, height);
  const row = (y) => Array.from({ length: width }, (_, x) => data[4 * (y * width + x)] / 255);
  return Array.from({ length: height }, (_, y) => row(y));
}

/** The smallest box around what is not paper. */
function inkBox(rows, paper) {
  const inked = (levels) => levels.some((level) => Math.abs(level - paper) > 0.1);
  const columns = rows[0].map((_, x) => rows.map((row) => row[x]));
  const [y, bottom] = [rows.findIndex(inked), rows.findLastIndex(inked) + 1];
  const [x, right] = [columns.findIndex(inked), columns.findLastIndex(inked) + 1];
  return { x: Math.max(x, 0), y: Math.max(y, 0), width: right - x || 1, height: bottom - y || 1 };
}
