// What is being looked at. Every view listens; changes of one frame are told at once.

export const state = { t: 0, sequence: 0, layer: 0, unit: 0, vocabulary: "classic", theme: "light" };

const listeners = [];
let pending = null;

/** Call `listen(changed)` after changes; `changed` is the set of names that changed. */
export function onChange(listen) {
  listeners.push(listen);
}

/** Change some of the state; the views hear of it in the next frame. */
export function set(patch) {
  for (const [name, value] of Object.entries(patch)) {
    if (state[name] === value) continue;
    state[name] = value;
    if (pending === null) {
      pending = new Set();
      requestAnimationFrame(tell);
    }
    pending.add(name);
  }
}

function tell() {
  const changed = pending;
  pending = null;
  for (const listen of listeners) listen(changed);
}
