// The bar on top: what is looked at, and in which words. Then the views, in order.
import { data } from "lens/data";
import { html } from "lens/draw";
import { onChange, set, state } from "lens/state";
import { label } from "lens/words";

document.documentElement.classList.add("alive");
const prefersDark = matchMedia("(prefers-color-scheme: dark)").matches;
state.theme = prefersDark ? "dark" : "light";
document.documentElement.dataset.theme = state.theme;
state.vocabulary = data.vocabulary;
state.layer = data.measured;
state.unit = data.layers[data.measured].pinned.units[0] ?? 0;
state.t = Math.max(0, Math.floor(data.sequences[0].length * 0.6) - 1);

const bar = document.getElementById("bar");

function picker(name, options, chosen, choose) {
  const wrap = html("label", { class: "picker" });
  const select = html("select", { id: `pick-${name}` });
  for (const [value, text] of options) {
    const option = html("option", { value }, text.length > 40 ? `${text.slice(0, 39)}…` : text);
    select.append(option);
  }
  select.value = chosen;
  select.addEventListener("change", () => choose(select.value));
  wrap.append(html("span", {}, name), select);
  bar.append(wrap);
  return select;
}

const unitOptions = () => data.layers[state.layer].pinned.units.map((j) => [String(j), String(j)]);
if (data.sequences.length > 1) picker("sequence", data.sequences.map((s, k) => [String(k), s.name]), "0", (v) => set({ sequence: Number(v) }));
const layers = data.layers.length > 1
  ? picker("layer", data.layers.map((l, k) => [String(k), l.name]), String(state.layer), (v) => set({ layer: Number(v), unit: data.layers[Number(v)].pinned.units[0] ?? 0 }))
  : null;
const units = picker("unit", unitOptions(), String(state.unit), (v) => set({ unit: Number(v) }));

const time = html("div", { class: "time" });
const back = html("button", { type: "button", "aria-label": "one step back" }, "‹");
const play = html("button", { type: "button", id: "play", "aria-label": "play" }, "▶");
const next = html("button", { type: "button", "aria-label": "one step on" }, "›");
const slider = html("input", { type: "range", id: "time", min: 0, max: data.steps - 1, step: 1, "aria-label": "step" });
const shown = html("output", { id: "now" });
time.append(back, play, next, slider, shown);
bar.append(time);

const go = (t) => set({ t: Math.min(Math.max(t, 0), data.steps - 1) });
slider.addEventListener("input", () => go(Number(slider.value)));
back.addEventListener("click", () => go(state.t - 1));
next.addEventListener("click", () => go(state.t + 1));
let playing = null;
play.addEventListener("click", () => {
  if (playing) {
    clearInterval(playing);
    playing = null;
  } else {
    playing = setInterval(() => go(state.t + 1 >= data.steps ? 0 : state.t + 1), 250);
  }
  play.textContent = playing ? "❚❚" : "▶";
});

picker("words", Object.keys(data.words).map((v) => [v, v]), state.vocabulary, (v) => set({ vocabulary: v }));
const theme = html("button", { type: "button", id: "theme", "aria-label": "light or dark" }, "◐");
theme.addEventListener("click", () => set({ theme: state.theme === "dark" ? "light" : "dark" }));
bar.append(theme);

addEventListener("keydown", (event) => {
  if (event.target instanceof Element && event.target.matches("select, input:not(#time), button") && event.key === " ") return;
  if (event.target instanceof Element && event.target.matches("select, input[type=range]") && event.key.startsWith("Arrow")) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = event.shiftKey ? 10 : 1;
  const pinned = data.layers[state.layer].pinned.units;
  const other = (by) => set({ unit: pinned[(Math.max(0, pinned.indexOf(state.unit)) + by + pinned.length) % pinned.length] });
  if (event.key === "ArrowLeft") go(state.t - step);
  else if (event.key === "ArrowRight") go(state.t + step);
  else if (event.key === "Home") go(0);
  else if (event.key === "End") go(data.steps - 1);
  else if (event.key === "[") other(-1);
  else if (event.key === "]") other(1);
  else if (event.key === " ") play.click();
  else return;
  event.preventDefault();
});

function refresh(changed) {
  slider.value = state.t;
  shown.textContent = `step ${state.t + data.first} of 0 … ${data.total - 1}`;
  if (changed.has("layer")) {
    units.replaceChildren(...unitOptions().map(([value, text]) => html("option", { value }, text)));
    if (layers) layers.value = String(state.layer);
  }
  if (changed.has("unit") || changed.has("layer")) {
    const value = String(state.unit);
    if (![...units.options].some((o) => o.value === value)) units.append(html("option", { value }, `${value} (8 bits)`));
    units.value = value;
  }
  if (changed.has("theme")) document.documentElement.dataset.theme = state.theme;
  if (changed.has("vocabulary")) document.getElementById("scheme").hidden = state.vocabulary !== "LTM/STM";
}
onChange(refresh);
refresh(new Set(["t"]));
document.getElementById("scheme").textContent = data.scheme;
document.getElementById("scheme").hidden = state.vocabulary !== "LTM/STM";

const nav = document.getElementById("nav");
const CHAPTERS = [["findings", "Findings"], ["theatre", "Cell theatre"], ["score", "Score"], ["ledger", "Ledger"], ["horizon", "Horizons"], ["river", "Gradient river"], ["influence", "Influence"], ["units", "Units"], ...(data.film.length ? [["film", "Film"]] : [])];
for (const [id, text] of CHAPTERS) nav.append(label(html("a", { href: `#${id}` }), text));

await import("lens/findings");
await import("lens/theatre");
await import("lens/score");
await import("lens/ledger");
await import("lens/horizon");
await import("lens/river");
await import("lens/influence");
await import("lens/units");
if (data.film.length) await import("lens/film");
document.documentElement.classList.add("ready");

let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  requestAnimationFrame(() => {
    set({ redrawn: width });
    dispatchEvent(new Event("redraw"));
  });
});
