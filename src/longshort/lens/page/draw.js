// Drawing: SVG elements, scales, axes, heat strips, colours, and pictures to take away.
import { state } from "lens/state";

const SPACE = "http://www.w3.org/2000/svg";
const LIGHT = {
  ink: "#1b1f24", soft: "#5c6670", faint: "#d9dee3", grid: "#e9ecef", paper: "#ffffff", mark: "#c2185b",
  f: "#0072b2", i: "#008a64", g: "#b87400", o: "#a8477f", c: "#1b1f24", h: "#6b7680", x: "#5c6670",
  r: "#a8477f", z: "#0072b2", n: "#b87400", lstm: "#0072b2", gru: "#00806a", rnn: "#c8452a",
};
const DARK = {
  ink: "#e8ebee", soft: "#a3adb7", faint: "#3a424a", grid: "#2a3138", paper: "#14181c", mark: "#ff6fa5",
  f: "#58b4ea", i: "#3ecfa0", g: "#f0b040", o: "#e394c4", c: "#e8ebee", h: "#9aa5af", x: "#a3adb7",
  r: "#e394c4", z: "#58b4ea", n: "#f0b040", lstm: "#58b4ea", gru: "#3ecfb4", rnn: "#ff8a6e",
};

export const colours = () => (state.theme === "dark" ? DARK : LIGHT);

/** The colour of a kind of cell; others of the same kind are shades of it, towards the paper or the ink. */
export function shade(kind, k) {
  const own = colours();
  if (!k) return own[kind];
  const triple = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const [from, to] = [triple(own[kind]), triple(k % 2 ? own.paper : own.ink)];
  const share = Math.min(0.45 + 0.15 * Math.floor((k - 1) / 2), 0.75);
  return `#${from.map((v, c) => Math.round(v + (to[c] - v) * share).toString(16).padStart(2, "0")).join("")}`;
}

export function svg(tag, attributes = {}, text) {
  const element = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

export function html(tag, attributes = {}, text) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** A drawing as wide as its place, emptied. */
export function canvasOf(place, height, name) {
  const width = Math.max(280, Math.floor(place.clientWidth));
  const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name });
  drawing.setAttribute("font-family", "system-ui, sans-serif");
  drawing.setAttribute("font-size", "12");
  place.replaceChildren(drawing);
  return { drawing, width, height };
}

export function line(points, attributes) {
  let path = "";
  let pen = "M";
  for (const [x, y] of points) {
    if (!Number.isFinite(y)) pen = "M";
    else {
      path += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
      pen = "L";
    }
  }
  return svg("path", { d: path, fill: "none", "stroke-linejoin": "round", ...attributes });
}

export function scale(low, high, start, end) {
  const span = high - low || 1;
  const place = (value) => start + ((value - low) / span) * (end - start);
  place.back = (pixel) => low + ((pixel - start) / (end - start)) * span;
  return place;
}

/** Round numbers between two values, about `count` of them. */
export function ticks(low, high, count = 5) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + 1e-9 * span; v += step) found.push(Math.abs(v) < 1e-12 * span ? 0 : v);
  return found;
}

/** Whole numbers between two values, about `count` of them. */
export const wholes = (low, high, count = 5) => ticks(low, high, Math.min(count, Math.max(1, high - low)));

/** A number with about `digits` significant digits and a true minus sign. */
export function number(value, digits = 3) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "–" : value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-4 ? value.toExponential(Math.max(0, digits - 2)) : String(Number(value.toPrecision(digits)));
  return text.replaceAll("-", "−");
}

/** A text of `most` letters at most. */
export const brief = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

export function axisY(drawing, place, values, { left, right, format = number }) {
  const { grid, soft } = colours();
  for (const value of values) {
    const y = place(value);
    drawing.append(svg("line", { x1: left, x2: right, y1: y, y2: y, stroke: grid }));
    drawing.append(svg("text", { x: left - 6, y: y + 4, fill: soft, "text-anchor": "end", "font-size": 11 }, format(value)));
  }
}

export function axisX(drawing, place, values, { y, format = number, title }) {
  const { soft, faint } = colours();
  for (const value of values) {
    const x = place(value);
    drawing.append(svg("line", { x1: x, x2: x, y1: y, y2: y + 4, stroke: faint }));
    drawing.append(svg("text", { x, y: y + 16, fill: soft, "text-anchor": "middle", "font-size": 11 }, format(value)));
  }
  if (title) {
    const middle = (place(values[0]) + place(values[values.length - 1])) / 2;
    drawing.append(svg("text", { x: middle, y: y + 32, fill: soft, "text-anchor": "middle", "font-size": 11 }, title));
  }
}

const mix = (stops, share) => {
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const k = Math.min(Math.floor(place), stops.length - 2);
  return stops[k].map((v, c) => Math.round(v + (stops[k + 1][c] - v) * (place - k)));
};
const VIRIDIS = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121], [109, 205, 89], [180, 222, 44], [253, 231, 37]];
const MAGMA = [[0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122], [229, 80, 100], [251, 135, 97], [254, 194, 135], [252, 253, 191]];
const signed = () => (state.theme === "dark"
  ? [[70, 150, 230], [35, 75, 120], [30, 36, 42], [120, 50, 40], [240, 110, 85]]
  : [[33, 90, 170], [146, 190, 222], [250, 250, 250], [240, 165, 130], [178, 35, 40]]);

/** Colour of a share in [0, 1]: gates "viridis", gradients "magma", signed values "signed" (0.5 is zero). */
export const tint = (map, share) => mix(map === "viridis" ? VIRIDIS : map === "magma" ? MAGMA : signed(), share);
export const rgb = (triple) => `rgb(${triple.join(",")})`;

/** A heat map as an image in the drawing: `share(row, column)` in [0, 1], NaN left clear. */
export function heat(drawing, { x, y, width, height, rows, columns, share, map }) {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const table = Array.from({ length: 256 }, (_, k) => tint(map, k / 255));
  for (let r = 0, at = 0; r < rows; r++) {
    for (let k = 0; k < columns; k++, at += 4) {
      const value = share(r, k);
      if (!Number.isFinite(value)) continue;
      const colour = table[Math.min(255, Math.max(0, Math.round(value * 255)))];
      image.data[at] = colour[0];
      image.data[at + 1] = colour[1];
      image.data[at + 2] = colour[2];
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  drawing.append(svg("image", { x, y, width, height, href: canvas.toDataURL(), preserveAspectRatio: "none", style: "image-rendering: pixelated" }));
}

/** A colour scale with its two ends, for heat maps. */
export function legend(drawing, { x, y, map, low, high, width = 90 }) {
  heat(drawing, { x, y, width, height: 8, rows: 1, columns: 64, share: (_, k) => k / 63, map });
  const { soft } = colours();
  drawing.append(svg("text", { x: x - 4, y: y + 8, fill: soft, "text-anchor": "end", "font-size": 11 }, low));
  drawing.append(svg("text", { x: x + width + 4, y: y + 8, fill: soft, "font-size": 11 }, high));
}

/** The line that marks the step in every view; `move(x)` places it. */
export function cursor(drawing, top, bottom) {
  const mark = svg("line", { class: "cursor", y1: top, y2: bottom, x1: 0, x2: 0, stroke: colours().mark, "stroke-width": 1.5, "pointer-events": "none" });
  drawing.append(mark);
  return (x) => {
    mark.setAttribute("x1", x);
    mark.setAttribute("x2", x);
  };
}

/** Let a pointer over the drawing choose the step. */
export function follow(drawing, place, T, choose, top = 0, bottom = Infinity) {
  const pick = (event) => {
    const box = drawing.getBoundingClientRect();
    const y = event.clientY - box.top;
    if (y < top || y > bottom) return;
    const t = Math.round(place.back(event.clientX - box.left));
    if (t >= 0 && t < T) choose(t, y, event);
  };
  drawing.addEventListener("pointermove", pick);
  drawing.addEventListener("pointerdown", pick);
}

function download(blob, name) {
  const link = html("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** The drawings of a place as one SVG text, on paper of the page's colour. */
export function svgText(place) {
  const parts = [...place.querySelectorAll("svg")];
  const width = Math.max(...parts.map((p) => Number(p.getAttribute("width"))));
  const height = parts.reduce((sum, p) => sum + Number(p.getAttribute("height")) + 8, 0);
  const whole = svg("svg", { xmlns: SPACE, width, height, viewBox: `0 0 ${width} ${height}` });
  whole.append(svg("rect", { width, height, fill: colours().paper }));
  let y = 0;
  for (const part of parts) {
    const copy = part.cloneNode(true);
    copy.setAttribute("y", y);
    y += Number(part.getAttribute("height")) + 8;
    whole.append(copy);
  }
  return new XMLSerializer().serializeToString(whole);
}

/** Copy text, or save it as a file where the clipboard is closed. */
export async function take(text, name, type) {
  try {
    await navigator.clipboard.writeText(text);
    return "copied";
  } catch {
    download(new Blob([text], { type }), name);
    return "saved";
  }
}

export async function takePicture(place, name) {
  const text = svgText(place);
  const image = new Image();
  image.src = `data:image/svg+xml;base64,${btoa(unescape(encodeURIComponent(text)))}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = 2 * image.width;
  canvas.height = 2 * image.height;
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  try {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
    return "copied";
  } catch {
    download(blob, name);
    return "saved";
  }
}
