// The front page: plain sentences, each with its number and what to do.
import { data } from "lens/data";
import { html } from "lens/draw";
import { view } from "lens/view";
import { label } from "lens/words";

const MARKS = { warning: ["!", "Look into this"], note: ["·", "Worth knowing"], good: ["✓", "As it should be"] };

const { body } = view("findings", {
  title: "Findings",
  about: "What the measurements below say in plain words: how far back the memory reaches, which cells keep longest and whether the model uses them, then warnings, then the rest. Each sentence leads to the view that shows it.",
  formula: null,
});

const list = html("ol", { class: "findings" });
for (const found of data.findings) {
  const item = html("li", { class: found.tone });
  const [mark, meaning] = MARKS[found.tone];
  item.append(html("span", { class: "mark", title: meaning, "aria-label": meaning }, mark));
  const text = html("div");
  text.append(label(html("p", { class: "sentence" }), found.text));
  if (found.remedy) text.append(label(html("p", { class: "remedy" }), found.remedy));
  if (found.view !== "findings") text.append(html("a", { href: `#${found.view}` }, "show"));
  item.append(text);
  list.append(item);
}
body.append(list);
if (data.notes.length) {
  const left = html("details", { class: "notes", open: "" });
  left.append(html("summary", {}, "What this page shows, and leaves out"));
  const lines = html("ul");
  for (const note of data.notes) lines.append(html("li", {}, note));
  left.append(lines);
  body.append(left);
}
