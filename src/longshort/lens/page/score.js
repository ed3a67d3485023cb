// Everything over time: the input on top, then one heat strip for each gate, cell and output.
import { data, exact, stripValue } from "lens/data";
import { axisX, canvasOf, colours, cursor, follow, heat, html, legend, line, number, rgb, scale, svg, tint, wholes } from "lens/draw";
import { onChange, set, state } from "lens/state";
import { view } from "lens/view";
import { label, worded } from "lens/words";

const { body, foot } = view("score", {
  title: "Score",
  about: "What happens over time. Each strip holds one quantity, one row a unit, the longest memories on top; click a row to look at that unit everywhere.",
  formula: "",
  table: () => {
    const layer = data.layers[state.layer];
    const rows = [["step", ...Object.keys(layer.strips).flatMap((q) => layer.rows.map((u) => `${q}${u}`))]];
    for (let t = 0; t < data.steps; t++) {
      rows.push([t + data.first, ...Object.values(layer.strips).flatMap((s) => layer.rows.map((_, r) => stripValue(s[state.sequence], r, t).toPrecision(4)))]);
    }
    return rows;
  },
});

const words = html("div", { class: "tokens", "aria-label": "tokens" });
const place = html("div");
body.append(words, place);
let move = () => {};
let mark = () => {};

function drawTokens() {
  words.hidden = !data.tokens;
  if (!data.tokens) return;
  words.replaceChildren();
  const layer = data.layers[state.layer];
  const values = exact(layer, state.unit, layer.kind === "lstm" ? "c" : "h", state.sequence);
  data.tokens[state.sequence].forEach((token, t) => {
    const word = html("bdi", { class: "token", "data-t": t, title: `step ${t + data.first}` }, token.length > 40 ? `${token.slice(0, 39)}…` : token);
    if (values) {
      const share = 0.5 + 0.5 * Math.tanh(values[t]);
      word.style.background = rgb(tint("signed", share));
      word.style.color = Math.abs(share - 0.5) > 0.32 ? (state.theme === "dark" ? "#0b0d10" : "#fff") : "inherit";
    }
    word.addEventListener("pointerenter", () => set({ t }));
    words.append(word);
  });
}

function draw() {
  drawTokens();
  const layer = data.layers[state.layer];
  const names = Object.keys(layer.strips);
  const rows = layer.rows.length;
  const narrow = body.clientWidth < 560;
  const left = narrow ? 34 : 156;
  const right = narrow ? 12 : 96;
  const strip = Math.max(44, Math.min(120, rows * 4));
  const top = data.tokens ? 20 : 96;
  const gap = narrow ? 22 : 10;
  const height = top + names.length * (strip + gap) + 62;
  const { drawing, width } = canvasOf(place, height, "Gates, cells and outputs over time");
  const x = scale(-0.5, data.steps - 0.5, left, width - right);
  const { soft, ink } = colours();
  if (!data.tokens) inputs(drawing, x, left, width - right, narrow);
  names.forEach((q, k) => {
    const y = top + k * (strip + gap) + (narrow ? 14 : 0);
    const packed = layer.strips[q][state.sequence];
    const signed = packed.lo < 0;
    heat(drawing, { x: left, y, width: width - right - left, height: strip, rows, columns: data.steps, map: signed ? "signed" : "viridis",
      share: (r, t) => (t < data.sequences[state.sequence].length ? (signed ? packed.bytes[r * data.steps + t] / 255 : stripValue(packed, r, t)) : Number.NaN) });
    const name = svg("text", { x: narrow ? left : left - 12, y: narrow ? y - 4 : y + strip / 2, fill: colours()[q] ?? ink, "text-anchor": narrow ? "start" : "end", "font-weight": 600 });
    drawing.append(label(name, `{${q}}`));
    if (!narrow) drawing.append(svg("text", { x: left - 12, y: y + strip / 2 + 15, fill: soft, "text-anchor": "end", "font-size": 11 }, signed ? `±${number(packed.hi, 2)}` : "0 … 1"));
    if (!narrow && layer.open[q]) saturation(drawing, layer, q, width - right + 8, y, strip);
    if (k === 0 && !narrow) drawing.append(svg("text", { x: width - right + 8, y: y - 3, fill: soft, "font-size": 10 }, "shut | open"));
  });
  const bottom = top + names.length * (strip + gap) + (narrow ? 8 : 0);
  axisX(drawing, x, wholes(0, data.steps - 1, narrow ? 4 : 10), { y: bottom, format: (t) => String(t + data.first), title: "step" });
  legend(drawing, { x: left + 24, y: height - 12, map: "viridis", low: "0", high: "1", width: 60 });
  legend(drawing, { x: left + 150, y: height - 12, map: "signed", low: "−", high: "+", width: 60 });
  const outline = names.map((_, k) => svg("rect", { x: left, width: width - right - left, height: strip / rows, fill: "none", stroke: colours().mark, "pointer-events": "none", "stroke-width": 1, "data-k": k }));
  drawing.append(...outline);
  mark = () => {
    const row = layer.rows.indexOf(state.unit);
    outline.forEach((box, k) => {
      box.setAttribute("visibility", row < 0 ? "hidden" : "visible");
      box.setAttribute("y", top + k * (strip + gap) + (narrow ? 14 : 0) + (Math.max(row, 0) * strip) / rows);
    });
  };
  const set_ = cursor(drawing, 4, bottom);
  move = () => {
    set_(x(state.t));
    const row = layer.rows.indexOf(state.unit);
    const values = row < 0 ? [] : names.map((q) => `${worded(`{${q}}`)} ${number(stripValue(layer.strips[q][state.sequence], row, state.t), 2)}`);
    foot.textContent = `Step ${state.t + data.first}, unit ${state.unit}: ${values.join(" · ")}. The replay is within ${data.difference.toExponential(0)} of the model.`;
    for (const word of words.children) word.classList.toggle("now", Number(word.dataset.t) === state.t);
  };
  mark();
  move();
  follow(drawing, x, data.steps, (t, y, event) => {
    const patch = { t };
    if (event.type === "pointerdown") {
      const k = Math.floor((y - top) / (strip + gap));
      const row = Math.floor((((y - top) - k * (strip + gap) - (narrow ? 14 : 0)) / strip) * rows);
      if (k >= 0 && k < names.length && row >= 0 && row < rows) patch.unit = layer.rows[row];
    }
    set(patch);
  });
}

function inputs(drawing, x, left, right, narrow) {
  const [, channels, T] = data.input.shape;
  const shown = Math.min(channels, 6);
  const start = state.sequence * channels * T;
  const length = data.sequences[state.sequence].length;
  drawing.append(label(svg("text", { x: narrow ? left : left - 12, y: narrow ? 11 : 50, fill: colours().x, "text-anchor": narrow ? "start" : "end", "font-weight": 600 }), "{x}"));
  const all = data.input.values.subarray(start, start + shown * T);
  const [low, high] = all.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  const y = scale(low, high, 80, 16);
  const shades = [colours().x, colours().f, colours().g, colours().i, colours().o, colours().rnn];
  for (let k = 0; k < shown; k++) {
    const series = data.input.values.subarray(start + k * T, start + k * T + length);
    drawing.append(line(Array.from(series, (v, t) => [x(t), y(v)]), { stroke: shades[k], "stroke-width": 1.2 }));
  }
  if (!narrow) {
    data.channels.slice(0, 3).forEach((name, k) => drawing.append(svg("text", { x: right + 8, y: 22 + 14 * k, fill: shades[k], "font-size": 11 }, name.length > 14 ? `${name.slice(0, 13)}…` : name)));
    if (channels > 3) drawing.append(svg("text", { x: right + 8, y: 22 + 42, fill: colours().soft, "font-size": 10 }, `+ ${channels - 3} more`));
  }
}

function saturation(drawing, layer, q, x, y, strip) {
  const rows = layer.rows.length;
  drawing.append(svg("line", { x1: x + 40, x2: x + 40, y1: y, y2: y + strip, stroke: colours().faint }));
  layer.rows.forEach((unit, r) => {
    const at = y + (r * strip) / rows;
    const tall = Math.max(0.7, strip / rows - 0.3);
    const [shut, open] = [layer.shut[q][unit] * 38, layer.open[q][unit] * 38];
    drawing.append(svg("rect", { x: x + 40 - shut, y: at, width: shut, height: tall, fill: colours().soft }));
    drawing.append(svg("rect", { x: x + 40, y: at, width: open, height: tall, fill: colours()[q] }));
  });
}

onChange((changed) => {
  if (["sequence", "layer", "theme"].some((n) => changed.has(n))) draw();
  else {
    if (changed.has("unit")) {
      drawTokens();
      mark();
    }
    move();
  }
});
addEventListener("redraw", draw);
draw();
