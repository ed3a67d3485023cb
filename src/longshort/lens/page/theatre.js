// One unit, one step, real numbers in the equations, and a slider on every gate.
import { data, exact } from "lens/data";
import { axisX, axisY, canvasOf, colours, cursor, follow, html, line, number, scale, svg, ticks, wholes } from "lens/draw";
import { onChange, set, state } from "lens/state";
import { view } from "lens/view";
import { label, worded } from "lens/words";

const { body, foot, write } = view("theatre", {
  title: "Cell theatre",
  about: "One unit at one step, with its own numbers. Move a slider to ask what would have been: this unit is computed again from here, all else stays as it was recorded.",
  formula: "",
});

const GATES = { lstm: ["f", "i", "g", "o"], gru: ["z", "n"], rnn: [] };
const over = {};
let onward = false;

const controls = html("div", { class: "controls" });
const equations = html("div", { class: "equations" });
const stage = html("div", { class: "stage" });
const trace = html("div", { class: "stage" });
body.append(controls, equations, stage, trace);

const layerOf = () => data.layers[state.layer];
const show = (value) => number(value, 4);

/** The recorded numbers of the unit in use; null where the page keeps only its 8 bits. */
function recorded() {
  const layer = layerOf();
  const names = layer.kind === "lstm" ? ["i", "f", "g", "o", "c"] : layer.kind === "gru" ? ["z", "n", "h"] : ["h"];
  const found = Object.fromEntries(names.map((q) => [q, exact(layer, state.unit, q, state.sequence)]));
  if (Object.values(found).some((v) => v === null)) return null;
  const place = layer.pinned.units.indexOf(state.unit);
  const start = layer.pinned.start.values[state.sequence * layer.pinned.units.length + place];
  return { ...found, start };
}

/** The order in which the layer ran through the steps of the page. */
function order() {
  const T = Math.min(data.sequences[state.sequence].length, data.steps);
  const steps = Array.from({ length: T }, (_, t) => t);
  return layerOf().reverse ? steps.reverse() : steps;
}

/** Run the unit again with the sliders' gates from the step on; the state at every step. */
export function rerun(numbers, kind, step, gates, from, onwards) {
  const memory = kind === "lstm" ? numbers.c : numbers.h;
  const state_ = Float64Array.from(memory);
  const out = Float64Array.from(memory, (c, t) => (kind === "lstm" ? numbers.o[t] * Math.tanh(c) : c));
  const first = from.indexOf(step);
  if (kind === "rnn") return { state: state_, out, before: Number.NaN };
  if (first < 0) return { state: state_, out, before: numbers.start };
  let before = first === 0 ? numbers.start : memory[from[first - 1]];
  const entry = before;
  for (let place = first; place < from.length; place++) {
    const t = from[place];
    const use = (q) => ((place === first || onwards) && q in gates ? gates[q] : numbers[q][t]);
    before = kind === "lstm" ? use("f") * before + use("i") * use("g") : use("z") * before + (1 - use("z")) * use("n");
    state_[t] = before;
    out[t] = kind === "lstm" ? use("o") * Math.tanh(before) : before;
  }
  return { state: state_, out, before: entry };
}

const FORMULAS = {
  lstm: "{c}: c = f·c₋₁ + i·g      {h}: h = o·tanh c",
  gru: "{h}: h = z·h₋₁ + (1 − z)·n",
  rnn: "{h}: h = tanh(W x + U h₋₁ + b)",
};

function makeControls() {
  controls.replaceChildren();
  write(FORMULAS[layerOf().kind]);
  for (const gate of GATES[layerOf().kind]) {
    const row = html("label", { class: "slider", style: `--gate: var(--${gate})` });
    const signed = gate === "g" || gate === "n";
    const input = html("input", { type: "range", min: signed ? -1 : 0, max: 1, step: 0.001, id: `slider-${gate}`, "data-gate": gate });
    const value = html("output", { id: `value-${gate}` });
    input.addEventListener("input", () => {
      over[gate] = Number(input.value);
      draw();
    });
    row.append(label(html("span"), `{${gate}}`), input, value);
    controls.append(row);
  }
  if (!GATES[layerOf().kind].length) return;
  const more = html("div", { class: "row" });
  const hold = html("label");
  const box = html("input", { type: "checkbox", id: "onward" });
  box.checked = onward;
  box.addEventListener("change", () => {
    onward = box.checked;
    draw();
  });
  hold.append(box, " hold from here on");
  const back = html("button", { type: "button", id: "as-recorded" }, "As recorded");
  back.addEventListener("click", () => {
    clear();
    draw();
  });
  more.append(hold, back);
  controls.append(more);
}

function clear() {
  for (const gate of Object.keys(over)) delete over[gate];
}

function equation(parts) {
  const row = html("p", { class: "equation" });
  for (const [text, gate, symbol] of parts) {
    const span = html("span", gate ? { style: `color: var(--${gate})` } : {}, text);
    if (symbol) {
      span.dataset.value = symbol;
      span.title = worded(`{${gate}}`);
    }
    row.append(span);
  }
  return row;
}

function draw() {
  const numbers = recorded();
  const layer = layerOf();
  controls.hidden = numbers === null || !layer.theatre;
  if (numbers === null) {
    equations.replaceChildren(html("p", { class: "missing" }, "The page keeps this unit in 8 bits only. Choose a unit from the list above: those are kept exactly."));
    stage.replaceChildren();
    trace.replaceChildren();
    return;
  }
  const t = state.t;
  const inside = t < data.sequences[state.sequence].length;
  const made = rerun(numbers, layer.kind, t, layer.theatre ? over : {}, order(), onward);
  const use = (q) => over[q] ?? numbers[q][t];
  for (const gate of GATES[layer.kind]) {
    document.getElementById(`slider-${gate}`).value = use(gate);
    const value = document.getElementById(`value-${gate}`);
    value.textContent = show(use(gate)) + (gate in over ? ` (was ${show(numbers[gate][t])})` : "");
  }
  const before = layer.theatre && inside ? made.before : Number.NaN;
  const now = made.state[t];
  equations.replaceChildren();
  if (!inside) equations.append(html("p", { class: "missing" }, "This step lies after the end of the sequence."));
  else if (layer.kind === "lstm") {
    equations.append(
      equation([["c = ", "c"], ["f·c₋₁", "f"], [" + "], ["i", "i"], ["·"], ["g", "g"], [" = "], [show(use("f")), "f", "f"], [" × "], [show(before), "c", "before"], [" + "], [show(use("i")), "i", "i"], [" × "], [show(use("g")), "g", "g"], [" = "], [show(now), "c", "c"]]),
      equation([["h = ", "h"], ["o", "o"], ["·tanh c = "], [show(use("o")), "o", "o"], [" × "], [show(Math.tanh(now)), "c", "tanh"], [" = "], [show(made.out[t]), "h", "h"]]),
    );
  } else if (layer.kind === "gru") {
    equations.append(equation([["h = ", "h"], ["z·h₋₁", "z"], [" + "], ["(1 − z)·n", "n"], [" = "], [show(use("z")), "z", "z"], [" × "], [show(before), "h", "before"], [" + "], [show(1 - use("z")), "z"], [" × "], [show(use("n")), "n", "n"], [" = "], [show(now), "h", "h"]]));
  } else equations.append(equation([["h = ", "h"], [show(now), "h", "h"], ["  A plain RNN has no gates: nothing to hold open."]]));
  if (inside && layer.theatre && layer.kind !== "rnn") belt(layer.kind, use, before, now, made.out[t]);
  else stage.replaceChildren();
  course(layer.kind === "lstm" ? numbers.c : numbers.h, made.state);
  foot.textContent = `Unit ${state.unit} of ${layer.name}.${layer.theatre ? " The other units and later gates do not respond to the sliders." : ""}`;
}

/** The memory as a bar: what was there, what is kept, what is added, what is shown. */
function belt(kind, use, before, now, out) {
  const narrow = stage.clientWidth < 560;
  const left = narrow ? 8 : 270;
  const rowHeight = narrow ? 44 : 32;
  const rows = kind === "lstm"
    ? [["{c} before", [[before, "c"]]], ["{keep}", [[use("f") * before, "f"]]], ["plus {write}", [[use("f") * before, "f"], [use("i") * use("g"), "i"]]], ["{c} now", [[now, "c"]]], ["{show}", [[out, "o"]]]]
    : [["{h} before", [[before, "h"]]], ["{z} × {h} before", [[use("z") * before, "z"]]], ["plus (1 − {z}) × {n}", [[use("z") * before, "z"], [(1 - use("z")) * use("n"), "n"]]], ["{h} now", [[now, "h"]]]];
  const { drawing, width } = canvasOf(stage, rows.length * rowHeight + 26, "The memory as a bar");
  const ends = rows.flatMap(([, parts]) => parts.reduce(([sum, list], [v]) => [sum + v, [...list, sum + v]], [0, [0]])[1]);
  const reach = Math.max(0.1, ...ends.map(Math.abs));
  const [low, high] = [Math.min(-0.25 * reach, ...ends), Math.max(0.25 * reach, ...ends)];
  const x = scale(low, high, left, width - 64);
  const { soft, ink, faint } = colours();
  drawing.append(svg("line", { x1: x(0), x2: x(0), y1: 0, y2: rows.length * rowHeight, stroke: faint }));
  rows.forEach(([name, parts], k) => {
    const y = k * rowHeight + (narrow ? 18 : 5);
    const text = svg("text", { x: narrow ? left : left - 12, y: narrow ? y - 5 : y + 15, fill: soft, "text-anchor": narrow ? "start" : "end" });
    drawing.append(label(text, name));
    let sum = 0;
    for (const [value, gate] of parts) {
      const [a, b] = [x(sum), x(sum + value)];
      drawing.append(svg("rect", { x: Math.min(a, b), y, width: Math.max(1, Math.abs(b - a)), height: 20, rx: 3, fill: colours()[gate], "fill-opacity": gate === "i" ? 0.75 : 0.9 }));
      sum += value;
    }
    drawing.append(svg("text", { x: width - 4, y: y + 15, fill: ink, "text-anchor": "end", "font-variant-numeric": "tabular-nums" }, show(sum)));
  });
  axisX(drawing, x, ticks(low, high, narrow ? 4 : 6), { y: rows.length * rowHeight });
}

let moveCursor = () => {};
function course(old, made) {
  const { drawing, width } = canvasOf(trace, 130, "The memory of this unit over time");
  const values = [...old, ...made].filter(Number.isFinite);
  const x = scale(0, data.steps - 1, 48, width - 12);
  const y = scale(Math.min(0, ...values), Math.max(0, ...values), 96, 8);
  axisY(drawing, y, ticks(Math.min(0, ...values), Math.max(0, ...values), 3), { left: 48, right: width - 12 });
  axisX(drawing, x, wholes(0, data.steps - 1, width < 500 ? 4 : 8), { y: 96, format: (t) => String(t + data.first), title: "step" });
  const length = data.sequences[state.sequence].length;
  const points = (series) => Array.from(series.subarray ? series.subarray(0, length) : series.slice(0, length), (v, t) => [x(t), y(v)]);
  drawing.append(line(points(old), { stroke: colours().c, "stroke-width": 1.5 }));
  if (Object.keys(over).length) drawing.append(line(points(made), { stroke: colours().mark, "stroke-width": 1.5, "stroke-dasharray": "4 3" }));
  moveCursor = cursor(drawing, 4, 96);
  moveCursor(x(state.t));
  follow(drawing, x, data.steps, (t) => set({ t }));
}

onChange((changed) => {
  if (changed.has("layer")) makeControls();
  if (changed.has("t") || changed.has("unit") || changed.has("layer") || changed.has("sequence")) clear();
  draw();
});
makeControls();
draw();
