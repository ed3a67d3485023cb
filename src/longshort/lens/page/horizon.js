// Three horizons on one axis: what could be learnt, what is stored, what is used.
import { data } from "lens/data";
import { axisX, axisY, brief, canvasOf, colours, html, line, number, scale, shade, svg, ticks, wholes } from "lens/draw";
import { onChange } from "lens/state";
import { choice, view } from "lens/view";
import { label, worded } from "lens/words";

const H = data.horizon;
const { body, foot } = view("horizon", {
  title: `Three horizons: ${H.layer}`,
  about: "How far back the memory reaches, asked in three ways: does gradient arrive, can the past be read from the state, does the loss suffer when the past is cut off. Where they disagree lies the diagnosis. The first two are of the layer named above, by look(…, layer=…).",
  formula: "learnable G(k) = ‖dL/dc(T−k)‖ / ‖dL/dc(T)‖      stored bits(k) = −½ log₂(1 − R²)      used U(k) = L(last k) − L(all)",
  table: () => {
    const rows = [["model", "curve", "lag", "value"]];
    for (const m of H.models) {
      for (const [curve, { lags, series, band }] of Object.entries(curves(m))) {
        const all = { ...series, ...(band && { least: band[0], most: band[1] }) };
        for (const [name, values] of Object.entries(all)) lags.forEach((k, n) => rows.push([m.name, `${curve} ${name}`, k, values[n]]));
      }
    }
    return rows;
  },
});

const curves = (m) => ({
  ...(m.learnable && { learnable: { lags: m.learnable.lags, band: m.learnable.band, series: { full: m.learnable.full, ...(m.learnable.carousel && { carousel: m.learnable.carousel }) } } }),
  ...(m.stored && { stored: { lags: m.stored.lags, band: m.stored.band, series: { bits: m.stored.bits, control: m.stored.control } } }),
  ...(m.used && { used: { lags: m.used.lags, band: m.used.band, series: { zero: m.used.zero, mean: m.used.mean } } }),
});

let logarithmic = H.longest > 40;
const keys = html("div", { class: "keys" });
const several = H.models.length > 1;
const crowded = H.models.length > 3;
const table = html("table", { class: "ends" });
const place = html("div", { class: "stage" });
const spread = html("div", { class: "stage" });
body.append(choice([[false, "lag"], [true, "log lag"]], logarithmic, (v) => { logarithmic = v; draw(); }, "Scale of the lag"), keys, ...(several ? [table] : []), place, spread, html("p", { class: "sentence" }));
label(body.querySelector(".sentence"), H.sentence);

function draw() {
  const narrow = place.clientWidth < 560;
  const left = 52;
  const each = 128;
  const gap = 34;
  const panels = [["learnable", "learnable: gradient by lag"], ["stored", narrow ? `stored: bits about ${brief(H.asked, 24)}` : `stored: bits about ${brief(H.asked, 60)} k steps ago`], ["used", `used, by the whole model: rise of the loss${narrow ? "" : " with k steps only"}`]].filter(([name]) => H.models.some((m) => m[name]));
  const { drawing, width } = canvasOf(place, panels.length * (each + gap) + 36, "Three horizons by lag");
  const right = width - 14;
  const to = (k) => (logarithmic ? Math.log10(k + 1) : k);
  const place_ = scale(to(0), to(H.longest), left, right);
  const x = (k) => place_(to(k));
  const { soft, faint, mark, ink } = colours();
  keys.replaceChildren();
  const bands = H.models.some((m) => m.seeds > 1);
  if (!several) keys.append(html("span", { class: "key", style: `--gate: var(--${H.models[0].kind})` }, H.models[0].name));
  if (!crowded) keys.append(label(html("span", { class: "key dashed" }), "dashed: {carousel}, mean state"));
  keys.append(html("span", { class: "key band" }, "grey: what chance gives"));
  if (bands) keys.append(html("span", {}, "lines: the median of the seeds; bands: their range"));
  ends();
  panels.forEach(([name, heading], p) => {
    const top = p * (each + gap) + 18;
    const bottom = top + each - 12;
    drawing.append(label(svg("text", { x: left, y: top - 6, fill: ink, "font-weight": 600 }), heading));
    const series = H.models.filter((m) => m[name]);
    const shown = (m) => Object.entries(curves(m)[name].series).slice(0, crowded ? 1 : 2);
    const values = series.flatMap((m) => [...shown(m).flatMap(([, v]) => v), ...(curves(m)[name].band ?? []).flat()]).filter(Number.isFinite);
    let y;
    if (name === "learnable") {
      const low = Math.max(1e-6, Math.min(1e-3, ...values.filter((v) => v > 0)));
      const high = Math.max(1, ...values);
      const span = scale(Math.log10(low), Math.log10(high), bottom, top);
      y = (v) => span(Math.log10(Math.max(v, low)));
      const decades = [];
      for (let d = Math.ceil(Math.log10(low)); d <= Math.floor(Math.log10(high)); d += Math.log10(high / low) > 5 ? 2 : 1) decades.push(10 ** d);
      axisY(drawing, y, decades, { left, right, format: (v) => (v >= 0.01 && v < 1000 ? number(v) : `1e${Math.round(Math.log10(v))}`) });
      drawing.append(svg("line", { x1: left, x2: right, y1: y(0.01), y2: y(0.01), stroke: mark, "stroke-dasharray": "2 4" }));
    } else {
      const low = Math.min(0, ...values);
      const high = Math.max(1e-6, ...values);
      y = scale(low, high, bottom, top);
      axisY(drawing, y, ticks(low, high, 3), { left, right });
    }
    for (const m of name === "stored" ? series : []) {
      const { lags, control, error } = m.stored;
      const chance = (n) => Math.max(y(Math.max(0, control[n]) + 2 * error[n]), top);
      const band = [...lags.map((k, n) => [x(k), chance(n)]), ...lags.map((k) => [x(k), y(0)]).reverse()];
      drawing.append(svg("path", { d: `M${band.map((b) => b.map((v) => v.toFixed(1)).join(" ")).join("L")}Z`, fill: faint, "fill-opacity": 0.7 }));
    }
    for (const m of series) {
      const stroke = shade(m.kind, m.shade);
      const { lags, band: seeds } = curves(m)[name];
      const points = (v) => lags.map((k, n) => [x(k), y(v[n])]);
      if (seeds) {
        const around = [...lags.map((k, n) => [x(k), y(seeds[1][n])]), ...lags.map((k, n) => [x(k), y(seeds[0][n])]).reverse()];
        if (around.flat().every(Number.isFinite)) drawing.append(svg("path", { class: "seeds", d: `M${around.map((b) => b.map((v) => v.toFixed(1)).join(" ")).join("L")}Z`, fill: stroke, "fill-opacity": crowded ? 0.12 : 0.2 }));
      }
      const [main, other] = shown(m);
      if (other && other[0] !== "control") drawing.append(line(points(other[1]), { stroke, "stroke-width": 1.2, "stroke-dasharray": "5 4" }));
      drawing.append(line(points(main[1]), { stroke, "stroke-width": 2 }));
      const end = m.ends[name];
      if (end && end.value >= 0) {
        drawing.append(svg("circle", { cx: x(Math.min(end.value, H.longest)), cy: bottom, r: 4.5, fill: stroke }));
        const text = svg("text", { x: Math.min(x(end.value) + 7, right - 4), y: bottom - 5, fill: stroke, "font-size": 11, "font-weight": 600, "text-anchor": x(end.value) > right - 40 ? "end" : "start" }, `${end.censored ? "≥ " : ""}${end.value}`);
        if (!several) drawing.append(text);
      }
    }
    if (H.required) {
      drawing.append(svg("line", { x1: x(H.required), x2: x(H.required), y1: top - 2, y2: bottom, stroke: mark, "stroke-dasharray": "5 3" }));
      if (p === 0) drawing.append(svg("text", { x: x(H.required) - 5, y: top + 8, "text-anchor": "end", fill: mark, "font-size": 11 }, narrow ? "needed" : `the task needs ${H.required}`));
    }
    const marks = logarithmic ? [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].filter((k) => k <= H.longest && (!narrow || [0, 2, 10, 50, 200, 1000].includes(k))) : wholes(0, H.longest, narrow ? 4 : 10);
    axisX(drawing, x, marks, { y: bottom, format: String, title: p === panels.length - 1 ? "k, steps back" : undefined });
    drawing.append(svg("line", { x1: left, x2: right, y1: bottom, y2: bottom, stroke: soft, "stroke-width": 0.5 }));
  });
  halves();
  foot.textContent = H.foot;
}

/** A row for each model: its three horizons, the median of its seeds, and their range. */
function ends() {
  const named = ["learnable", "stored", "used"].filter((name) => H.models.some((m) => m.ends[name]));
  const head = html("tr");
  for (const text of ["steps back", ...named]) head.append(html("th", {}, text));
  table.replaceChildren(head, ...H.models.map((m) => {
    const row = html("tr");
    row.append(html("th", { class: "key", style: `--gate: ${shade(m.kind, m.shade)}` }, m.seeds > 1 ? `${m.name}, ${m.seeds} seeds` : m.name));
    for (const name of named) {
      const end = m.ends[name];
      const range = end && end.most > end.least ? ` (${Math.max(end.least, 0)}–${Math.max(end.most, 0)})` : "";
      row.append(html("td", {}, end ? `${end.censored ? "≥ " : ""}${Math.max(end.value, 0)}${range}` : "–"));
    }
    return row;
  }));
}

/** How many units have which half-life, on a logarithmic axis; beyond the sequence is a bin of its own. */
function halves() {
  if (!H.half.length) {
    spread.replaceChildren();
    return;
  }
  const bins = 16;
  const top = Math.log10(Math.max(...H.half, 2));
  const low = Math.min(Math.log10(Math.max(0.1, Math.min(...H.half))), top - 0.6); // a factor of four at least: marks that differ
  const counts = new Array(bins + 1).fill(0);
  H.half.forEach((v, j) => { counts[H.censored[j] ? bins : Math.min(bins - 1, Math.max(0, Math.floor(((Math.log10(v) - low) / (top - low || 1)) * bins)))] += 1; });
  const { drawing, width } = canvasOf(spread, 128, "Half-lives of the units");
  const x = scale(0, bins + 1, 52, width - 14);
  const y = scale(0, Math.max(...counts), 84, 22);
  const { ink, f, mark } = colours();
  drawing.append(svg("text", { x: 52, y: 12, fill: ink, "font-weight": 600 }, width < 560 ? "half-lives that a quarter exceed" : "half-lives of the units, that a quarter of the sequences exceed"));
  axisY(drawing, y, wholes(0, Math.max(...counts), 3), { left: 52, right: width - 14 });
  counts.forEach((n, k) => drawing.append(svg("rect", { x: x(k) + 1, width: x(1) - x(0) - 2, y: y(n), height: y(0) - y(n), fill: k === bins ? mark : f, "fill-opacity": 0.85 })));
  const places = [0, 4, 8, 12];
  const at = (k) => 10 ** (low + (k / bins) * (top - low));
  axisX(drawing, x, places, { y: 84, format: (k) => number(at(k), 2), title: "steps" });
  axisX(drawing, x, [bins + 0.5], { y: 84, format: () => `> ${number(H.length)}` });
}

onChange((changed) => {
  if (changed.has("theme")) draw();
});
addEventListener("redraw", draw);
draw();
