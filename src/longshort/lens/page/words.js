// Labels in three vocabularies. A template names symbols in braces: "the {f} of unit 3".
import { data } from "lens/data";
import { onChange, state } from "lens/state";

/** A template in the words of the vocabulary in use. */
export function worded(template) {
  const words = data.words[state.vocabulary];
  return template.replace(/\{(\w+)\}/g, (whole, symbol) => words[symbol] ?? whole);
}

/** Give an element a label that follows the vocabulary. */
export function label(element, template) {
  element.dataset.words = template;
  element.textContent = worded(template);
  return element;
}

onChange((changed) => {
  if (!changed.has("vocabulary")) return;
  for (const element of document.querySelectorAll("[data-words]")) element.textContent = worded(element.dataset.words);
});
