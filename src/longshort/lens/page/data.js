// The numbers that came with the page: JSON in the page's data element, arrays as base64.

/** A one-dimensional array and its shape; u8 arrays stand for lo + byte / 255 * (hi - lo). */
function decode(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (ch) => ch.charCodeAt(0));
  if (packed.type === "f4") return { shape: packed.shape, values: new Float32Array(bytes.buffer) };
  return { shape: packed.shape, bytes, lo: packed.lo, hi: packed.hi };
}

function revive(key, value) {
  if (value && typeof value === "object" && "type" in value && "data" in value && "shape" in value) return decode(value);
  return value;
}

export const data = JSON.parse(document.getElementById("data").textContent, revive);

/** Values of one sequence of a strip: (units, T) bytes of the layer's quantity, as numbers. */
export function stripValue(strip, row, t) {
  const T = strip.shape[1];
  return strip.lo + (strip.bytes[row * T + t] / 255) * (strip.hi - strip.lo);
}

/** One quantity of a unit whose exact numbers are in the page, over time; null where they are not. */
export function exact(layer, unit, quantity, sequence) {
  const place = layer.pinned.units.indexOf(unit);
  const packed = layer.pinned.values[quantity];
  if (place < 0 || !packed) return null;
  const [, units, T] = packed.shape;
  const start = (sequence * units + place) * T;
  return packed.values.subarray(start, start + T);
}
