// The frame of a view: heading, two sentences, formula, place to draw, and what to take away.
import { html, svgText, take, takePicture } from "lens/draw";
import { label } from "lens/words";

/** Make a view and put it into the page; returns its places, and `write` for another formula. `table` gives rows of cells for a copy as text. */
export function view(id, { title, about, formula, table }) {
  const section = html("section", { id, class: "view", "aria-labelledby": `${id}-title` });
  const head = html("div", { class: "head" });
  head.append(label(html("h2", { id: `${id}-title` }), title));
  const tools = html("div", { class: "tools" });
  const body = html("div", { class: "body" });
  const said = html("span", { class: "said", role: "status" });
  const tool = (text, name, act) => {
    const button = html("button", { type: "button", class: "small", title: name }, text);
    button.addEventListener("click", async () => {
      said.textContent = await act();
      setTimeout(() => { said.textContent = ""; }, 1500);
    });
    tools.append(button);
  };
  if (formula !== null) {
    tool("SVG", "Copy this view as SVG", () => take(svgText(body), `${id}.svg`, "image/svg+xml"));
    tool("PNG", "Copy this view as PNG", () => takePicture(body, `${id}.png`));
  }
  if (table) tool("Table", "Copy these numbers as a table", () => take(table().map((row) => row.join("\t")).join("\n"), `${id}.tsv`, "text/tab-separated-values"));
  tools.prepend(said);
  head.append(tools);
  section.append(head, label(html("p", { class: "about" }), about));
  const line = html("p", { class: "formula" });
  const write = (text) => {
    line.hidden = !text;
    line.replaceChildren(...text.split("      ").map((part) => label(html("span"), part)));
  };
  write(formula ?? "");
  section.append(line);
  const foot = html("p", { class: "foot" });
  section.append(body, foot);
  document.getElementById("views").append(section);
  return { section, body, foot, write };
}

/** A row of choices of which one is pressed. */
export function choice(options, chosen, choose, name) {
  const row = html("div", { class: "choice", role: "group", "aria-label": name });
  for (const [value, text] of options) {
    const button = label(html("button", { type: "button", "aria-pressed": String(value === chosen) }), text);
    button.addEventListener("click", () => {
      for (const other of row.children) other.setAttribute("aria-pressed", String(other === button));
      choose(value);
    });
    row.append(button);
  }
  return row;
}
