// Which inputs the answer rests on, by methods that may disagree.
import { data } from "lens/data";
import { axisX, axisY, canvasOf, colours, cursor, follow, html, line, number, rgb, scale, svg, ticks, tint, wholes } from "lens/draw";
import { onChange, set, state } from "lens/state";
import { choice, view } from "lens/view";

const I = data.influence;
const NAMES = { donor: "donor swap", ig: "integrated gradients", gradient: "gradient × input", ledger: "ledger" };
const SAYS = {
  donor: "How the answer changes when this step's input is replaced by that of another sequence: y(x) − y(x with another x(t)).",
  ig: "Gradients gathered on the way from the mean input b to this one: (x − b)(t) · ∫ dy/dx(t).",
  gradient: "The gradient at this input, times the input: x(t) · dy/dx(t). It fades with distance even where the input matters.",
  ledger: "What is left in the answer of what was written at this step: it says when, not why.",
};
const { body, foot } = view("influence", {
  title: "Influence",
  about: "Which steps of the {x} the last answer rests on. The methods answer different questions; trust what they agree on.",
  formula: "",
  table: () => [["step", ...Object.keys(I?.methods ?? {})], ...Array.from({ length: data.steps }, (_, t) => [t + data.first, ...Object.values(I?.methods ?? {}).map((m) => m.values[state.sequence * data.steps + t])])],
});
let method = I ? Object.keys(I.methods)[0] : null;
const words = html("div", { class: "tokens" });
const place = html("div", { class: "stage" });
const says = html("p", { class: "about" });
const agree = html("p", { class: "foot" });
if (I) body.append(choice(Object.keys(I.methods).map((m) => [m, NAMES[m]]), method, (m) => { method = m; draw(); }, "Method"), says, words, place, agree);
else body.append(html("p", { class: "missing" }, "Influence was not measured."));
let move = () => {};

function draw() {
  if (!I) return;
  const at = state.sequence * data.steps;
  const values = I.methods[method].values.subarray(at, at + data.steps);
  const known = Array.from(values, (v, t) => [t, v]).filter(([, v]) => Number.isFinite(v));
  const most = Math.max(1e-12, ...known.map(([, v]) => Math.abs(v)));
  says.textContent = SAYS[method];
  words.hidden = !data.tokens;
  if (data.tokens) {
    words.replaceChildren();
    data.tokens[state.sequence].forEach((token, t) => {
      const word = html("bdi", { class: "token", "data-t": t }, token.length > 40 ? `${token.slice(0, 39)}…` : token);
      const share = 0.5 + (0.5 * (values[t] || 0)) / most;
      word.style.background = rgb(tint("signed", share));
      word.style.color = Math.abs(share - 0.5) > 0.32 ? (state.theme === "dark" ? "#0b0d10" : "#fff") : "inherit";
      word.addEventListener("pointerenter", () => set({ t }));
      words.append(word);
    });
  }
  const narrow = place.clientWidth < 560;
  const { drawing, width } = canvasOf(place, data.tokens ? 196 : 250, "Influence of each step");
  const x = scale(-0.5, data.steps - 0.5, 52, width - 12);
  const [low, high] = [Math.min(0, ...known.map(([, v]) => v)), Math.max(0, ...known.map(([, v]) => v))];
  const y = scale(low, high || 1e-9, 130, 10);
  const { i, rnn, soft, faint, g } = colours();
  axisY(drawing, y, ticks(low, high || 1e-9, 4), { left: 52, right: width - 12 });
  const wide = Math.max(0.8, x(0.84) - x(0));
  for (const [t, v] of known) drawing.append(svg("rect", { x: x(t) - wide / 2, width: wide, y: Math.min(y(v), y(0)), height: Math.max(0.5, Math.abs(y(v) - y(0))), fill: v >= 0 ? i : rnn }));
  if (I.warmup && method === "donor") {
    const seen = Array.from(I.warmup.values, (v, t) => [t, v]).filter(([, v]) => Number.isFinite(v));
    const scaleTo = most / Math.max(1e-12, ...seen.map(([, v]) => v));
    drawing.append(line(seen.map(([t, v]) => [x(t), y(Math.min(high, v * Math.min(1, scaleTo)))]), { stroke: g, "stroke-dasharray": "3 3", "stroke-width": 1.5 }));
    drawing.append(svg("text", { x: width - 14, y: 146, fill: g, "font-size": 11, "text-anchor": "end" }, narrow ? "dashed: constant input" : "dashed: a push of one standard deviation on a constant input, what position alone does"));
  }
  drawing.append(svg("line", { x1: 52, x2: width - 12, y1: y(0), y2: y(0), stroke: faint }));
  const [, channels, T] = data.input.shape;
  const shown = data.tokens ? 0 : Math.min(channels, 4);
  const input = data.input.values.subarray(state.sequence * channels * T, state.sequence * channels * T + shown * T);
  const [a, b] = input.reduce(([m, n], v) => [Math.min(m, v), Math.max(n, v)], [Infinity, -Infinity]);
  const under = scale(a, b, 202, 158);
  const shades = [soft, colours().f, g, colours().o];
  for (let k = 0; k < shown; k++) drawing.append(line(Array.from(input.subarray(k * T, k * T + data.sequences[state.sequence].length), (v, t) => [x(t), under(v)]), { stroke: shades[k], "stroke-width": 1.1 }));
  axisX(drawing, x, wholes(0, data.steps - 1, narrow ? 4 : 10), { y: data.tokens ? 152 : 206, format: (t) => String(t + data.first), title: data.tokens ? "step" : "step (the input below the bars)" });
  const set_ = cursor(drawing, 4, data.tokens ? 152 : 206);
  move = () => {
    set_(x(state.t));
    for (const word of words.children) word.classList.toggle("now", Number(word.dataset.t) === state.t);
    const complete = I.complete[method];
    foot.textContent = `${I.name}: ${number(I.answers[state.sequence], 4)}. Step ${state.t + data.first}: ${number(values[state.t], 3)}.` + (complete ? ` The sum misses by ${complete[0].toExponential(0)} at most.` : "");
  };
  move();
  agree.textContent = I.agreement.length ? `Agreement on which steps matter (Spearman): ${I.agreement.map(([p, q, rho]) => `${NAMES[p]} / ${NAMES[q]} ${number(rho, 2)}`).join(" · ")}` : "";
  follow(drawing, x, data.steps, (t) => set({ t }));
}

onChange((changed) => {
  if (changed.has("theme") || changed.has("sequence")) draw();
  else move();
});
addEventListener("redraw", draw);
draw();
