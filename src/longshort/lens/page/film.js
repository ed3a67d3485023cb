// What a recorder kept while the model was trained: memory being learnt.
import { data } from "lens/data";
import { axisX, canvasOf, colours, heat, html, legend, line, number, scale, svg, ticks } from "lens/draw";
import { onChange } from "lens/state";
import { view } from "lens/view";

const { body, foot } = view("film", {
  title: "Film of the training",
  about: "How far back the gradient reached while the model was trained: each column a moment of the training, each row a lag.",
  formula: "G(k) = ‖dL/dc(T−k)‖ / ‖dL/dc(T)‖, as log₁₀",
  table: () => [["training step", "lag", "G"], ...data.film.flatMap((frame) => frame.lags.map((k, n) => [frame.step, k, frame.full[n]]))],
});
const place = html("div", { class: "stage" });
body.append(place);

function draw() {
  const { drawing, width } = canvasOf(place, 330, "Reach of the gradient during training");
  const lags = data.film[0].lags;
  const frames = data.film.length;
  const x = scale(-0.5, frames - 0.5, 58, width - 14);
  heat(drawing, { x: 58, y: 10, width: width - 72, height: 160, rows: lags.length, columns: frames, map: "magma", share: (r, k) => 1 + Math.log10(Math.max(data.film[k].full[r], 1e-6)) / 6 });
  const { soft, f, ink } = colours();
  const y = scale(-0.5, lags.length - 0.5, 10, 170);
  for (const r of ticks(0, lags.length - 1, 5).filter(Number.isInteger)) drawing.append(svg("text", { x: 50, y: y(r) + 4, "text-anchor": "end", fill: soft, "font-size": 11 }, String(lags[r])));
  drawing.append(svg("text", { x: 58, y: 196, fill: ink, "font-weight": 600 }, "median half-life, steps"));
  const half = data.film.map((frame) => frame.half);
  const top = Math.max(...half.filter(Number.isFinite), 1);
  const up = scale(0, top, 280, 204);
  for (const v of ticks(0, top, 3)) drawing.append(svg("text", { x: 50, y: up(v) + 4, "text-anchor": "end", fill: soft, "font-size": 11 }, number(v, 2)));
  drawing.append(line(half.map((v, k) => [x(k), up(v)]), { stroke: f, "stroke-width": 2 }));
  axisX(drawing, x, ticks(0, frames - 1, width < 500 ? 3 : 8).filter(Number.isInteger), { y: 284, format: (k) => String(data.film[k].step), title: "training step" });
  legend(drawing, { x: width - 130, y: 186, map: "magma", low: "1e−6", high: "1" });
  foot.textContent = `${frames} moments of the training.`;
}

onChange((changed) => {
  if (changed.has("theme")) draw();
});
addEventListener("redraw", draw);
draw();
