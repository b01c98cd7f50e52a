// The history and a forecast with its interval as SVG, read step by step with a slider.
import { el, number } from "./dom.js";

const HEIGHT = 280;
const EDGE = { right: 12, top: 12, bottom: 28 };

export function chart(past, { times, low, middle, high }) {
  const all = [...past.times, ...times];
  const values = [...past.values, ...low, ...high];
  const [bottom, top] = [Math.min(...values), Math.max(...values)];
  const origin = past.times.length;
  const marks = ticks(bottom, top);
  const left = 14 + 7 * Math.max(1, ...marks.map((value) => number(value).length));
  const svg = el("svg:svg", { role: "img", "aria-label": "History, forecast and 80 % interval" });
  const reading = el("output", { for: "step" });
  const max = all.length - 1;
  const slider = el("input", {
    type: "range",
    id: "step",
    min: 0,
    max,
    input: () => read(slider.value),
  });
  let cursor, width;

  const x = (index) => left + ((width - left - EDGE.right) * index) / max;
  const y = (value) =>
    EDGE.top + (HEIGHT - EDGE.top - EDGE.bottom) * ((top - value) / (top - bottom || 1));
  const line = (first, series) => series.map((value, i) => `${x(first + i)},${y(value)}`).join(" ");
  const text = (place, content) => el("svg:text", place, content);

  function draw() {
    width = Math.max(280, svg.clientWidth);
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    cursor = el("svg:line", { class: "cursor", y1: EDGE.top, y2: HEIGHT - EDGE.bottom });
    const joined = [past.values.at(-1), ...middle];
    const band = [line(origin, high), line(origin, low).split(" ").reverse().join(" ")].join(" ");
    svg.replaceChildren(
      ...marks.flatMap((value) => [
        el("svg:path", { class: "grid", d: `M${left} ${y(value)}H${width - EDGE.right}` }),
        text({ x: left - 8, y: y(value) + 4, "text-anchor": "end" }, number(value)),
      ]),
      text({ x: left, y: HEIGHT - 8 }, short(all[0])),
      text({ x: width - EDGE.right, y: HEIGHT - 8, "text-anchor": "end" }, short(all.at(-1))),
      el("svg:polygon", { class: "interval", points: band }),
      el("svg:polyline", { class: "past", points: line(0, past.values) }),
      el("svg:polyline", { class: "forecast", points: line(origin - 1, joined) }),
      cursor,
    );
    read(slider.value);
  }

  function read(step) {
    const ahead = step - origin;
    cursor.setAttribute("x1", x(step));
    cursor.setAttribute("x2", x(step));
    const interval =
      ahead >= 0 && `, 80 % between ${number(low[ahead])} and ${number(high[ahead])}`;
    const value = ahead < 0 ? past.values[step] : middle[ahead];
    const kind = ahead < 0 ? "" : "forecast ";
    reading.textContent = `${short(all[step])}: ${kind}${number(value)}${interval || ""}`;
    slider.setAttribute("aria-valuetext", reading.textContent);
  }

  svg.onpointermove = ({ offsetX }) => {
    slider.value = Math.round(((offsetX - left) / (width - left - EDGE.right)) * max);
    read(slider.value);
  };
  slider.value = origin;
  new ResizeObserver(draw).observe(svg);
  const names = { past: "history", forecast: "median forecast", interval: "80 % interval" };
  const key = el("p", { class: "hint row" });
  for (const [kind, name] of Object.entries(names))
    key.append(el("span", {}, el("span", { class: `key ${kind}` }), name));
  const label = el("label", { for: "step" }, "Read the chart");
  return el("div", { class: "chart" }, svg, key, label, slider, reading);
}

/** About five round values between two. */
function ticks(low, high) {
  const rough = (high - low || Math.abs(high) || 1) / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => (first + i) * step);
}

/** A time as in requests, without what says nothing: "2014-12-30T05:00:00" is "2014-12-30 05:00". */
const short = (time) => time.replace("T", " ").replace(/ 00:00(:00)?$|:00$/, "");
