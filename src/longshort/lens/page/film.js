// What a recorder kept while the model was trained: memory being learnt, moment by moment.
import { data } from "lens/data";
import { axisX, axisY, canvasOf, colours, cursor, heat, html, legend, line, number, scale, svg, wholes } from "lens/draw";
import { onChange } from "lens/state";
import { view } from "lens/view";
import { label } from "lens/words";

const film = data.film;
const gates = Object.keys(film[0].gates);
const gated = film[0].half.length > 0;
const { body, foot } = view("film", {
  title: "Film of the training",
  about: "How far back the gradient reached while the model was trained, how long its units kept what they held, and how often their gates were shut or open.",
  formula: "G(k) = ‖dL/dc(T−k)‖ / ‖dL/dc(T)‖, as log₁₀      shut < 0.1 < between < 0.9 < open",
  table: () => [
    ["training step", "quantity", "at", "value"],
    ...film.flatMap((frame) => [
      ...frame.lags.map((k, n) => [frame.step, "G", k, frame.full[n]]),
      ...frame.half.map((v, n) => [frame.step, "half-life quantile", n / (frame.half.length - 1 || 1), v]),
      ...gates.flatMap((g) => [[frame.step, "shut", g, frame.gates[g][0]], [frame.step, "open", g, frame.gates[g][1]]]),
    ]),
  ],
});

let now = film.length - 1;
const controls = html("div", { class: "time" });
const play = html("button", { type: "button", "aria-label": "play the training" }, "▶");
const slider = html("input", { type: "range", id: "frame", min: 0, max: film.length - 1, step: 1, "aria-label": "moment of the training" });
const shown = html("output", { id: "frame-step", class: "small" });
controls.append(play, slider, shown);
const whole = html("div", { class: "stage" });
const pair = html("div", { class: "pair" });
const reach = html("div", { class: "stage" });
const half = html("div", { class: "stage" });
const shut = html("div", { class: "stage" });
pair.append(reach, half);
body.append(controls, whole, pair, shut);
let move = () => {};

const go = (k) => {
  now = Math.min(Math.max(k, 0), film.length - 1);
  moment();
};
slider.addEventListener("input", () => go(Number(slider.value)));
let playing = null;
play.addEventListener("click", () => {
  if (playing) clearInterval(playing);
  playing = playing ? null : setInterval(() => go(now + 1 >= film.length ? 0 : now + 1), 300);
  play.textContent = playing ? "❚❚" : "▶";
});

/** All moments: lag by training step, with the cursor. */
function draw() {
  const { drawing, width } = canvasOf(whole, 236, "Reach of the gradient during training");
  const lags = film[0].lags;
  const [left, right] = [58, width - 14];
  const x = scale(-0.5, film.length - 0.5, left, right);
  heat(drawing, { x: left, y: 20, width: right - left, height: 160, rows: lags.length, columns: film.length, map: "magma", share: (r, k) => 1 + Math.log10(Math.max(film[k].full[r], 1e-6)) / 6 });
  const { soft, ink } = colours();
  const y = scale(-0.5, lags.length - 0.5, 20, 180);
  drawing.append(svg("text", { x: left, y: 12, fill: ink, "font-weight": 600 }, "gradient: lag ↓, training step →"));
  for (const r of wholes(0, lags.length - 1, 5)) drawing.append(svg("text", { x: left - 8, y: y(r) + 4, "text-anchor": "end", fill: soft, "font-size": 11 }, String(lags[r])));
  axisX(drawing, x, wholes(0, film.length - 1, width < 500 ? 3 : 8), { y: 182, format: (k) => String(film[k].step), title: "training step" });
  legend(drawing, { x: width - 136, y: 220, map: "magma", low: "1e−6", high: "1" });
  move = cursor(drawing, 20, 180);
  const pick = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    go(Math.round(x.back(event.clientX - drawing.getBoundingClientRect().left)));
  };
  drawing.addEventListener("pointerdown", pick);
  drawing.addEventListener("pointermove", pick);
  draw.place = x;
  moment();
}

/** One moment: the curve, the half-lives, the gates; those of the first moment dotted beside them. */
function moment() {
  const frame = film[now];
  slider.value = String(now);
  shown.textContent = `training step ${frame.step}`;
  const at = draw.place(now);
  move(at);
  curve(frame);
  if (gated) halves(frame);
  if (gates.length) saturation(frame);
  foot.textContent = `${film.length} moments of the training, steps ${film[0].step} to ${film[film.length - 1].step}; dotted: the first of them.`;
}

function curve(frame) {
  const { drawing, width } = canvasOf(reach, 210, "Gradient by lag at one moment");
  const { ink, f, soft } = colours();
  const kind = colours()[data.layers[data.measured].kind] ?? f;
  const longest = frame.lags[frame.lags.length - 1] || 1;
  const x = scale(0, longest, 52, width - 12);
  const low = -6;
  const high = Math.max(0, ...film.flatMap((one) => one.full.filter((v) => v > 0).map(Math.log10)));
  const y = scale(low, high, 166, 24);
  drawing.append(svg("text", { x: 52, y: 14, fill: ink, "font-weight": 600 }, "gradient by lag"));
  axisY(drawing, y, [-6, -4, -2, 0], { left: 52, right: width - 12, format: (v) => (v ? `1e${v}`.replace("-", "−") : "1") });
  const points = (one) => one.lags.map((k, n) => [x(k), y(Math.max(Math.log10(Math.max(one.full[n], 1e-30)), low))]);
  drawing.append(line(points(film[0]), { stroke: soft, "stroke-width": 1.2, "stroke-dasharray": "2 4" }));
  drawing.append(line(points(frame), { stroke: kind, "stroke-width": 2 }));
  axisX(drawing, x, wholes(0, longest, 5), { y: 166, format: String, title: "k, steps back" });
}

function halves(frame) {
  const { drawing, width } = canvasOf(half, 210, "Half-lives at one moment");
  const { ink, f, soft } = colours();
  const all = film.flatMap((one) => one.half);
  const low = Math.log10(Math.max(0.05, Math.min(...all)));
  const high = Math.log10(Math.max(frame.length, 2));
  const x = scale(0, 1, 52, width - 12);
  const y = scale(low, high, 166, 24);
  drawing.append(svg("text", { x: 52, y: 14, fill: ink, "font-weight": 600 }, "half-lives of the units, in steps"));
  axisY(drawing, y, [0.1, 1, 10, 100, 1000].map(Math.log10).filter((v) => v >= low && v <= high), { left: 52, right: width - 12, format: (v) => number(10 ** v) });
  const points = (one) => one.half.map((v, n) => [x(n / (one.half.length - 1 || 1)), y(Math.log10(Math.max(v, 10 ** low)))]);
  drawing.append(line(points(film[0]), { stroke: soft, "stroke-width": 1.2, "stroke-dasharray": "2 4" }));
  drawing.append(line(points(frame), { stroke: f, "stroke-width": 2 }));
  axisX(drawing, x, [0.08, 0.5, 0.92], { y: 166, format: (v) => ({ 0.08: "shortest", 0.5: "half of the units", 0.92: "longest" })[v] });
}

function saturation(frame) {
  const { drawing, width } = canvasOf(shut, 26 + 24 * gates.length, "Gates shut and open at one moment");
  const { ink, soft, faint } = colours();
  const left = Math.min(150, 0.32 * width);
  const x = scale(0, 1, left, width - 12);
  drawing.append(svg("text", { x: 0, y: 14, fill: ink, "font-weight": 600 }, "gates: shut on the left, open on the right"));
  gates.forEach((g, row) => {
    const y = 24 + 24 * row;
    const [low, high] = frame.gates[g];
    const colour = colours()[g];
    drawing.append(label(svg("text", { x: left - 8, y: y + 13, fill: colour, "text-anchor": "end" }), `{${g}}`));
    drawing.append(svg("rect", { x: x(0), width: x(1) - x(0), y, height: 17, fill: faint, "fill-opacity": 0.5 }));
    drawing.append(svg("rect", { x: x(0), width: x(low) - x(0), y, height: 17, fill: colour, "fill-opacity": 0.45 }));
    drawing.append(svg("rect", { x: x(1 - high), width: x(1) - x(1 - high), y, height: 17, fill: colour }));
    const middle = svg("text", { x: (x(0) + x(1)) / 2, y: y + 13, fill: soft, "text-anchor": "middle", "font-size": 11 }, `${Math.round(100 * low)} % shut, ${Math.round(100 * high)} % open`);
    drawing.append(middle);
  });
}

onChange((changed) => {
  if (changed.has("theme")) draw();
});
addEventListener("redraw", draw);
draw();
