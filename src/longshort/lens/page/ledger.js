// What the memory is made of: each part by the step at which it was written.
import { data, exact } from "lens/data";
import { axisX, axisY, canvasOf, colours, cursor, follow, heat, html, legend, number, scale, svg, ticks, wholes } from "lens/draw";
import { onChange, set, state } from "lens/state";
import { view } from "lens/view";
import { worded } from "lens/words";

let account = null;

const { body, foot, write } = view("ledger", {
  title: "Ledger",
  about: "The memory as an exact sum over the steps at which it was written. It says when something was written, not what caused it: later gates depend on earlier inputs too.",
  formula: "",
  table: () => [["written at", "left at the cursor"], ...(account ? Array.from(account.parts(state.t), (v, k) => [k + data.first, v]) : [])],
});
const stream = html("div", { class: "stage" });
const pair = html("div", { class: "pair" });
const triangle = html("div", { class: "stage" });
const bars = html("div", { class: "stage" });
pair.append(triangle, bars);
body.append(stream, pair);

/** Everything the ledger needs of one unit, in the layer's own order of time. */
function open() {
  const layer = data.layers[state.layer];
  const log = exact(layer, state.unit, "keep", state.sequence);
  const write = exact(layer, state.unit, "write", state.sequence);
  const gate = exact(layer, state.unit, layer.kind === "lstm" ? "i" : "opened", state.sequence);
  const total = exact(layer, state.unit, layer.kind === "lstm" ? "c" : "h", state.sequence);
  if (!log || !write || !gate) return null;
  const T = Math.min(data.sequences[state.sequence].length, data.steps);
  const start = layer.pinned.start.values[state.sequence * layer.pinned.units.length + layer.pinned.units.indexOf(state.unit)];
  const at = layer.reverse ? (k) => T - 1 - k : (k) => k;
  const shares = (step) => {
    const found = new Float64Array(T);
    let sum = 0;
    for (let k = step; k >= 0; k--) {
      found[k] = Math.exp(sum);
      sum += log[at(k)];
    }
    return { found, rest: Math.exp(sum) * start };
  };
  const parts = (t) => {
    const step = at(t);
    const made = new Float64Array(T);
    const { found } = shares(step);
    for (let k = 0; k <= step; k++) made[at(k)] = found[k] * write[at(k)];
    return made;
  };
  return { T, at, log, write, gate, total, start, shares, parts };
}

const FORMULAS = {
  lstm: "c(T) = F(0,T)·c(0) + Σ F(k,T)·i(k)·g(k)      F(k,T) = product of f from k+1 to T",
  gru: "h(T) = F(0,T)·h(0) + Σ F(k,T)·(1 − z(k))·n(k)      F(k,T) = product of z from k+1 to T",
};

let moves = [];
function draw() {
  const layer = data.layers[state.layer];
  write(layer.ledger ? "" : FORMULAS[layer.kind]);
  moves = [];
  account = layer.ledger ? null : open();
  if (!account) {
    const why = layer.ledger ?? "The page keeps this unit in 8 bits only. Choose a unit from the list above: those are kept exactly.";
    stream.replaceChildren(html("p", { class: "missing" }, why));
    triangle.replaceChildren();
    bars.replaceChildren();
    foot.textContent = "";
    return;
  }
  drawStream();
  drawTriangle();
  drawBars();
}

function drawStream() {
  const { T, at, log, write } = account;
  const groups = Math.min(10, T);
  const group = (k) => Math.min(groups - 1, Math.floor((k * groups) / T));
  const sums = Array.from({ length: T }, () => new Float64Array(groups + 1));
  let now = new Float64Array(groups + 1);
  now[groups] = account.start;
  for (let k = 0; k < T; k++) {
    const keep = Math.exp(log[at(k)]);
    now = now.map((v) => v * keep);
    now[group(k)] += write[at(k)];
    sums[at(k)].set(now);
  }
  const { drawing, width } = canvasOf(stream, 214, "The memory by the time at which it was written");
  const up = sums.map((s) => s.reduce((a, v) => a + Math.max(v, 0), 0));
  const down = sums.map((s) => s.reduce((a, v) => a + Math.min(v, 0), 0));
  const [low, high] = [Math.min(0, ...down), Math.max(0, ...up)];
  const x = scale(0, data.steps - 1, 48, width - 12);
  const y = scale(low, high || 1, 166, 20);
  const { soft, ink } = colours();
  axisY(drawing, y, ticks(low, high || 1, 4), { left: 48, right: width - 12 });
  const base = { up: new Float64Array(T), down: new Float64Array(T) };
  const dark = state.theme === "dark";
  for (const g of [groups, ...Array.from({ length: groups }, (_, k) => k)]) {
    const age = g === groups ? 0 : (g + 1) / groups;
    const shade = dark ? `hsl(205 75% ${78 - 52 * (1 - age)}%)` : `hsl(205 75% ${22 + 58 * age}%)`;
    for (const side of ["up", "down"]) {
      const value = (t) => (side === "up" ? Math.max(sums[t][g], 0) : Math.min(sums[t][g], 0));
      let any = false;
      let path = "";
      for (let t = 0; t < T; t++) path += `${t ? "L" : "M"}${x(t).toFixed(1)} ${y(base[side][t]).toFixed(1)}`;
      for (let t = T - 1; t >= 0; t--) {
        const v = value(t);
        any ||= v !== 0;
        base[side][t] += v;
        path += `L${x(t).toFixed(1)} ${y(base[side][t]).toFixed(1)}`;
      }
      if (any) drawing.append(svg("path", { d: `${path}Z`, fill: g === groups ? colours().faint : shade }));
    }
  }
  const course = Array.from(account.total.subarray(0, T), (v, t) => `${t ? "L" : "M"}${x(t).toFixed(1)} ${y(v).toFixed(1)}`).join("");
  drawing.append(svg("path", { d: course, fill: "none", stroke: ink, "stroke-width": 1.5 }));
  axisX(drawing, x, wholes(0, data.steps - 1, width < 500 ? 4 : 10), { y: 166, format: (t) => String(t + data.first), title: "step" });
  drawing.append(svg("text", { x: 48, y: 12, fill: soft, "font-size": 11 }, width < 500 ? "line: the whole; dark: written early" : "black line: the whole; layers: what is left, dark where it was written early, light where late".replace("black ", dark ? "" : "black ").replace("dark where", dark ? "dim where" : "dark where").replace("light where", dark ? "bright where" : "light where")));
  const move = cursor(drawing, 16, 166);
  moves.push(() => move(x(state.t)));
  follow(drawing, x, account.T, (t) => set({ t }));
  moves[moves.length - 1]();
}

function drawTriangle() {
  const { T, at, gate } = account;
  const side = Math.max(140, Math.min(triangle.clientWidth - 60, 330));
  const { drawing } = canvasOf(triangle, side + 66, "Effective attention");
  const x = scale(-0.5, T - 0.5, 48, 48 + side);
  const y = scale(-0.5, T - 0.5, 22, 22 + side);
  const cells = Math.min(T, 300);
  const step = T / cells;
  const rows = Array.from({ length: cells }, (_, r) => {
    const t = Math.min(T - 1, Math.floor((r + 0.5) * step));
    const { found } = account.shares(at(t));
    const row = new Float64Array(T);
    for (let k = 0; k < T; k++) row[at(k)] = k <= at(t) ? found[k] * gate[at(k)] : Number.NaN;
    return row;
  });
  heat(drawing, { x: 48, y: 22, width: side, height: side, rows: cells, columns: cells, map: "viridis", share: (r, k) => rows[r][Math.min(T - 1, Math.floor((k + 0.5) * step))] });
  const { soft, mark } = colours();
  drawing.append(svg("text", { x: 48, y: 12, fill: soft, "font-size": 11 }, "effective attention: what is left of step k at step T"));
  axisX(drawing, x, wholes(0, T - 1, 4), { y: 22 + side, format: (t) => String(t + data.first), title: "written at k" });
  for (const t of wholes(0, T - 1, 4)) drawing.append(svg("text", { x: 42, y: y(t) + 4, "text-anchor": "end", "font-size": 11, fill: soft }, String(t + data.first)));
  const row = svg("line", { x1: 48, x2: 48 + side, stroke: mark, "stroke-width": 1.5, "pointer-events": "none", class: "cursor" });
  drawing.append(row);
  moves.push(() => {
    row.setAttribute("y1", y(Math.min(state.t, T - 1)));
    row.setAttribute("y2", y(Math.min(state.t, T - 1)));
  });
  moves[moves.length - 1]();
  const pick = (event) => {
    const t = Math.round(y.back(event.clientY - drawing.getBoundingClientRect().top));
    if (t >= 0 && t < T) set({ t });
  };
  drawing.addEventListener("pointermove", pick);
  drawing.addEventListener("pointerdown", pick);
}

function drawBars() {
  const { T } = account;
  const height = Math.max(140, Math.min(triangle.clientWidth - 60, 330)) + 66;
  const { drawing, width } = canvasOf(bars, height, "Contributions to the memory at the cursor");
  const x = scale(-0.5, T - 0.5, 48, width - 12);
  const { soft, i, rnn, faint } = colours();
  const heading = svg("text", { x: 48, y: 12, fill: soft, "font-size": 11 });
  const shapes = Array.from({ length: T }, (_, k) => svg("rect", { x: x(k - 0.42), width: Math.max(0.8, x(k + 0.42) - x(k - 0.42)) }));
  const zero = svg("line", { x1: 48, x2: width - 12, stroke: faint });
  const axis = svg("g");
  drawing.append(heading, axis, zero, ...shapes);
  axisX(drawing, x, wholes(0, T - 1, 4), { y: height - 44, format: (t) => String(t + data.first), title: "written at k" });
  const move = () => {
    const t = Math.min(state.t, T - 1);
    const parts = account.parts(t);
    const rest = account.shares(account.at(t)).rest;
    const y = scale(Math.min(0, ...parts), Math.max(1e-9, ...parts), height - 48, 24);
    axis.replaceChildren();
    axisY(axis, y, ticks(Math.min(0, ...parts), Math.max(1e-9, ...parts), 4), { left: 48, right: width - 12 });
    zero.setAttribute("y1", y(0));
    zero.setAttribute("y2", y(0));
    let sum = rest;
    parts.forEach((v, k) => {
      sum += v;
      shapes[k].setAttribute("y", Math.min(y(v), y(0)));
      shapes[k].setAttribute("height", Math.abs(y(v) - y(0)));
      shapes[k].setAttribute("fill", v >= 0 ? i : rnn);
    });
    heading.textContent = `what the memory at step ${t + data.first} is made of`;
    const total = account.total[t];
    foot.textContent = worded(`Sum of the parts ${number(sum, 6)}, {${data.layers[state.layer].kind === "lstm" ? "c" : "h"}} ${number(total, 6)}, residual ${Math.abs(sum - total).toExponential(0)}`) + (rest ? `; of it from the state before the first step ${number(rest, 3)}.` : ".");
    foot.dataset.sum = String(sum);
  };
  moves.push(move);
  move();
}

onChange((changed) => {
  if (["unit", "sequence", "layer", "theme"].some((n) => changed.has(n))) draw();
  else for (const move of moves) move();
});
addEventListener("redraw", draw);
draw();
