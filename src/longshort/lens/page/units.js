// Every unit by how long it remembers and how much the loss needs it; gates held still; what drives them.
import { data } from "lens/data";
import { axisX, axisY, canvasOf, colours, html, number, scale, svg, ticks } from "lens/draw";
import { onChange, set, state } from "lens/state";
import { view } from "lens/view";
import { label, worded } from "lens/words";

const U = data.units;
const { body, foot } = view("units", {
  title: `Units and surgery: ${U.layer}`,
  about: "Each dot is a unit of the layer named above, by look(…, layer=…): to the right those that remember long, above those that the loss misses when they are silenced. A tick below is a unit that was not silenced. Click one to see it everywhere.",
  formula: "half-life = ln 2 / −mean ln f of a sequence; a quarter of the sequences exceed it      silenced: {c} clamped to its mean      held: a gate kept at its mean",
  table: () => [["unit", "half-life a quarter exceed", "beyond the sequence", "half-life on average", "estimated rise", "rise when silenced"], ...U.screen.map((v, j) => [j, U.half[j] ?? "", U.censored[j] ?? "", U.average[j] ?? "", v, U.exact[j] ?? ""])],
});
const pair = html("div", { class: "pair" });
const dots = html("div", { class: "stage" });
const side = html("div", { class: "stage" });
pair.append(dots, side);
body.append(pair);
let mark = () => {};

function draw() {
  const measured = data.layers[data.measured];
  const exactly = Object.keys(U.exact).length > 0;
  const ups = U.screen.map((v, j) => (exactly ? U.exact[j] : v));
  const known = ups.map((v, j) => [j, v]).filter(([, v]) => v !== undefined && v !== null);
  const untried = exactly ? ups.length - known.length : 0;
  const { drawing, width } = canvasOf(dots, 354, "Units by half-life and need");
  const half = U.half.length ? U.half : U.screen.map((_, j) => j + 1);
  const logs = half.map((v) => Math.log10(Math.max(v, 0.05)));
  const x = scale(Math.min(...logs) - 0.05, Math.max(...logs) + 0.05 * (Math.max(...logs) - Math.min(...logs)) + 0.02, 64, width - 20);
  const values = known.map(([, v]) => v);
  const [low, high] = [Math.min(0, ...values), Math.max(1e-9, ...values)];
  const y = scale(low, high, 270, 46);
  const floor = untried ? 292 : 270;
  const { soft, ink, f, mark: red, faint } = colours();
  axisY(drawing, y, ticks(low, high, 5), { left: 64, right: width - 20 });
  const marks = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].filter((v) => Math.log10(v) >= Math.min(...logs) - 0.05 && Math.log10(v) <= Math.max(...logs) + 0.1);
  const span = [10 ** Math.min(...logs), 10 ** Math.max(...logs)];
  if (U.half.length) axisX(drawing, (v) => x(Math.log10(v)), marks.length > 2 ? marks.filter((_, k) => width > 420 || k % 2 === 0) : ticks(...span, width > 420 ? 6 : 3), { y: floor, format: (v) => number(v, 2), title: `half-life, steps${U.censored.some(Boolean) ? " (open: longer than the sequence)" : ""}` });
  else axisX(drawing, (j) => x(Math.log10(j + 1)), [0, 1, 3, 7, 15, 31, 63, 127, 255, 511].filter((j) => j < half.length), { y: floor, format: String, title: "unit (a plain RNN has no half-life)" });
  drawing.append(svg("text", { x: 64, y: 16, fill: ink, "font-weight": 600 }, exactly ? `rise ${width > 400 ? "of the loss " : ""}when silenced, of ${untried ? `the ${known.length} of ${ups.length} units tried` : `all ${ups.length} units`}` : U.loss === null ? "units by half-life (no loss was given, so need is unknown)" : "estimated rise of the loss"));
  const shapes = new Map();
  half.forEach((v, j) => {
    const up = ups[j];
    const tried = up !== undefined && up !== null;
    const at = tried ? y(up) : floor - 8;
    const beside = U.censored[j] ? ((j % 9) - 4) * 2.5 : 0;
    const dot = tried
      ? svg("circle", { class: "tried", cx: x(logs[j]) + beside, cy: at, r: 5.5, fill: U.censored[j] ? "none" : f, stroke: f, "fill-opacity": 0.8 })
      : svg("rect", { class: "untried", x: x(logs[j]) + beside - 1.5, width: 3, y: at - 5, height: 10, fill: soft });
    dot.setAttribute("tabindex", -1);
    dot.setAttribute("style", "cursor: pointer");
    dot.dataset.x = x(logs[j]) + beside;
    dot.dataset.y = at;
    dot.append(svg("title", {}, `unit ${j}${tried ? "" : ", not silenced"}`));
    dot.addEventListener("click", () => set({ layer: data.measured, unit: j }));
    shapes.set(j, dot);
    drawing.append(dot);
  });
  for (const [j, v] of [...known].sort((p, q) => q[1] - p[1]).slice(0, 4)) if (v > 0) drawing.append(svg("text", { x: x(logs[j]) + (x(logs[j]) < 104 ? 10 : -16), y: y(v) + 4, "text-anchor": x(logs[j]) < 104 ? "start" : "end", fill: soft, "font-size": 11 }, String(j)));
  const ring = svg("circle", { r: 9, fill: "none", stroke: red, "stroke-width": 2, "pointer-events": "none" });
  drawing.append(ring);
  mark = () => {
    const dot = state.layer === data.measured ? shapes.get(state.unit) : null;
    ring.setAttribute("visibility", dot ? "visible" : "hidden");
    if (!dot) return;
    ring.setAttribute("cx", dot.dataset.x);
    ring.setAttribute("cy", dot.dataset.y);
    const j = state.unit;
    const life = U.half.length ? `half-life ${U.censored[j] ? "> " : ""}${number(U.half[j], 3)} steps in a quarter of the sequences, ${number(U.average[j], 3)} on average` : "";
    foot.textContent = worded(`Unit ${j} of ${measured.name}: ${[life, U.exact[j] !== undefined ? `silenced, the loss rises by ${number(U.exact[j], 3)}` : exactly ? "not silenced" : ""].filter(Boolean).join(", ")}.`) + (U.loss === null ? "" : ` Loss ${number(U.loss, 4)}.`);
  };
  mark();
  gates();
}

function gates() {
  const held = Object.entries(U.gates);
  const shares = Object.entries(U.shares);
  const height = 24 + held.length * 26 + (held.length ? 44 : 0) + 24 + shares.length * 26 + 40;
  const { drawing, width } = canvasOf(side, height, "Gates held still, and what drives them");
  const left = 170;
  const { ink, soft, f, g, faint } = colours();
  let y = 14;
  if (held.length) {
    drawing.append(svg("text", { x: 0, y, fill: ink, "font-weight": 600 }, "rise of the loss when held at its mean"));
    y += 12;
    const [low, high] = [Math.min(0, ...held.map(([, v]) => v)), Math.max(1e-9, ...held.map(([, v]) => v))];
    const x = scale(low, high, left, width - 62);
    for (const [name, value] of held) {
      const gate = name.slice(name.lastIndexOf(".") + 1);
      drawing.append(label(svg("text", { x: left - 8, y: y + 15, fill: soft, "text-anchor": "end", "font-size": 11 }), `{${gate}}${data.layers.length > 1 ? `, ${name.slice(0, name.lastIndexOf("."))}` : ""}`));
      drawing.append(svg("rect", { x: Math.min(x(0), x(value)), y: y + 2, width: Math.max(1, Math.abs(x(value) - x(0))), height: 18, rx: 2, fill: colours()[gate] ?? f }));
      drawing.append(svg("text", { x: width - 2, y: y + 15, fill: ink, "text-anchor": "end", "font-size": 11 }, number(value, 2)));
      y += 26;
    }
    drawing.append(svg("line", { x1: x(0), x2: x(0), y1: y - 26 * held.length, y2: y, stroke: faint }));
    y += 34;
  }
  if (shares.length) {
    drawing.append(svg("text", { x: 0, y, fill: ink, "font-weight": 600 }, "what moves each gate over time"));
    y += 12;
    const x = scale(0, 1, left, width - 8);
    for (const [gate, [byX, byH]] of shares) {
      drawing.append(label(svg("text", { x: left - 8, y: y + 15, fill: soft, "text-anchor": "end", "font-size": 11 }), `{${gate}}`));
      const total = byX + byH || 1;
      drawing.append(svg("rect", { x: x(0), y: y + 2, width: x(byX / total) - x(0), height: 18, fill: g }));
      drawing.append(svg("rect", { x: x(byX / total), y: y + 2, width: x(1) - x(byX / total), height: 18, fill: f }));
      y += 26;
    }
    drawing.append(svg("rect", { x: left, y: y + 6, width: 10, height: 10, fill: g }), label(svg("text", { x: left + 15, y: y + 15, fill: soft, "font-size": 11 }), "{x}"));
    drawing.append(svg("rect", { x: left + 90, y: y + 6, width: 10, height: 10, fill: f }), svg("text", { x: left + 105, y: y + 15, fill: soft, "font-size": 11 }, "recurrence"));
  }
}

onChange((changed) => {
  if (changed.has("theme")) draw();
  else if (changed.has("unit") || changed.has("layer")) mark();
});
addEventListener("redraw", draw);
draw();
