// The gradient of each gate's weights before it is summed over time.
import { data } from "lens/data";
import { axisX, canvasOf, colours, cursor, follow, heat, html, legend, number, scale, svg, wholes } from "lens/draw";
import { onChange, set, state } from "lens/state";
import { view } from "lens/view";
import { label, worded } from "lens/words";

const { body, foot } = view("river", {
  title: "Gradient river",
  about: "Which gate is taught by which step: the size of the weights' gradient, per step, before it is summed over time. A histogram of weight gradients cannot show this.",
  formula: "dL/dW = Σ δ(t)·u(t)ᵀ with u = [x(t); h(t−1)]      shown: log₁₀ ‖δ(t)·u(t)ᵀ‖",
  table: () => [["layer", "gate", "step", "norm"], ...data.rivers.flatMap((r) => r.gates.flatMap((g, k) => Array.from({ length: data.steps }, (_, t) => [r.layer, g, t + data.first, r.norms.values[k * data.steps + t]])))],
});
const place = html("div", { class: "stage" });
body.append(place);
let move = () => {};

function draw() {
  const narrow = place.clientWidth < 560;
  const left = narrow ? 12 : 156;
  const row = 30;
  const space = narrow ? 16 : 3;
  const count = data.rivers.reduce((n, r) => n + r.gates.length, 0);
  const height = data.rivers.length * 26 + count * (row + space) + 66;
  const { drawing, width } = canvasOf(place, height, "Gradient per gate and step");
  const x = scale(-0.5, data.steps - 0.5, left, width - 12);
  const logs = data.rivers.flatMap((r) => Array.from(r.norms.values, (v) => Math.log10(v))).filter(Number.isFinite);
  const high = Math.ceil(Math.max(...logs, -30));  // whole decades, so that the scale's ends are round
  const low = Math.floor(Math.max(Math.min(...logs, high - 1), high - 8));
  const { ink } = colours();
  let y = 0;
  for (const river of data.rivers) {
    drawing.append(svg("text", { x: left, y: y + 15, fill: ink, "font-weight": 600 }, river.layer));
    y += 26;
    river.gates.forEach((gate, k) => {
      y += narrow ? space : 0;
      const name = svg("text", { x: narrow ? left : left - 12, y: narrow ? y - 4 : y + row / 2 + 4, fill: colours()[gate] ?? ink, "text-anchor": narrow ? "start" : "end" });
      drawing.append(label(name, `{${gate}}`));
      heat(drawing, { x: left, y, width: width - 12 - left, height: row, rows: 1, columns: data.steps, map: "magma", share: (_, t) => (Math.log10(river.norms.values[k * data.steps + t]) - low) / (high - low) });
      y += row + (narrow ? 0 : space);
    });
  }
  axisX(drawing, x, wholes(0, data.steps - 1, narrow ? 4 : 10), { y, format: (t) => String(t + data.first), title: "step" });
  legend(drawing, { x: left + 60, y: height - 12, map: "magma", low: `1e${low}`.replace("-", "−"), high: `1e${high}`.replace("-", "−") });
  const set_ = cursor(drawing, 18, y);
  move = () => {
    set_(x(state.t));
    const last = data.rivers[data.rivers.length - 1];
    const values = last ? last.gates.map((g, k) => `${worded(`{${g}}`)} ${number(last.norms.values[k * data.steps + state.t], 2)}`) : [];
    foot.textContent = `Step ${state.t + data.first}${last ? `, ${last.layer}: ${values.join(" · ")}` : ""}. ${data.riverOf}`;
  };
  move();
  follow(drawing, x, data.steps, (t) => set({ t }));
}

onChange((changed) => {
  if (changed.has("theme")) draw();
  else move();
});
addEventListener("redraw", draw);
draw();
