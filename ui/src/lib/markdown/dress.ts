/* What harmless elements become: links that tell nobody where one came from, pictures that are not loaded, code with its
 * colours and a button, formulas as MathML (katex would need style attributes, which the page's policy forbids). */
import DOMPurify from "dompurify";
import { copy } from "../ui/copy";
import { coloured } from "./languages";
import { outside } from "./outside";

export function dressed(fragment: DocumentFragment, final: boolean): DocumentFragment {
  for (const link of fragment.querySelectorAll("a")) dressLink(link);
  for (const picture of fragment.querySelectorAll("img")) dressPicture(picture);
  for (const box of fragment.querySelectorAll("input")) dressBox(box);
  for (const code of fragment.querySelectorAll<HTMLElement>("code[data-math]")) if (final) void dressFormula(code);
  for (const code of fragment.querySelectorAll<HTMLElement>("pre > code")) dressCode(code, final);
  for (const table of fragment.querySelectorAll("table")) dressTable(table);
  return fragment;
}

function dressLink(link: HTMLAnchorElement): void {
  const url = outside(link.getAttribute("href"));
  if (!url) {
    link.removeAttribute("href");
    return;
  }
  link.rel = "noreferrer noopener";
  link.target = "_blank";
  if (!link.title) link.title = url.href;
}

/** A picture that stands in the text itself is shown; for any other one a button says where it would come from. */
function dressPicture(picture: HTMLImageElement): void {
  if (picture.hasAttribute("src")) return;
  const place = document.createElement("span");
  place.className = "remote";
  const url = outside(picture.getAttribute("data-from"));
  place.append(`Image${picture.alt ? ` “${picture.alt}”` : ""}`);
  if (url && url.protocol !== "mailto:") {
    const button = toolButton(`Open from ${url.host}`, () => window.open(url, "_blank", "noopener,noreferrer"));
    button.title = url.href;
    place.append(" ", button);
  }
  picture.replaceWith(place);
}

function dressBox(box: HTMLInputElement): void {
  if (box.type !== "checkbox") box.remove();
  box.disabled = true;
}

async function dressFormula(code: HTMLElement): Promise<void> {
  const display = code.dataset.math === "block";
  const { default: katex } = await import("katex");
  try {
    const html = katex.renderToString(code.textContent ?? "", {
      output: "mathml",
      displayMode: display,
      trust: false,
      strict: "ignore",
      maxExpand: 200,
      maxSize: 20,
    });
    const fragment = DOMPurify.sanitize(html, {
      USE_PROFILES: { mathMl: true },
      ADD_TAGS: ["semantics", "annotation"],
      ADD_ATTR: ["encoding"],
      FORBID_ATTR: ["style", "class", "id", "href"],
      RETURN_DOM_FRAGMENT: true,
    });
    const place = document.createElement("span");
    place.className = display ? "formula shown" : "formula";
    place.append(fragment);
    code.replaceWith(place);
  } catch {
    code.title = "This formula cannot be read";
  }
}

function dressCode(code: HTMLElement, final: boolean): void {
  const name = code.dataset.lang ?? "";
  const pre = code.parentElement;
  if (!pre) return;
  const figure = document.createElement("figure");
  const head = document.createElement("figcaption");
  const button = toolButton("Copy", async () => {
    button.textContent = (await copy(code.textContent ?? "", button)) ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  button.setAttribute("aria-label", "Copy this code");
  head.append(name || "text", button);
  pre.replaceWith(figure);
  figure.append(head, pre);
  pre.tabIndex = 0; // it may scroll sideways
  if (final && name) void colour(code, name);
}

async function colour(code: HTMLElement, name: string): Promise<void> {
  const html = await coloured(code.textContent ?? "", name);
  if (!html) return;
  const fragment = DOMPurify.sanitize(html, {
    ALLOWED_TAGS: ["span"],
    ALLOWED_ATTR: ["class"],
    RETURN_DOM_FRAGMENT: true,
  });
  code.replaceChildren(fragment);
}

/** A table scrolls by itself, so that the page does not. */
function dressTable(table: HTMLTableElement): void {
  const place = document.createElement("div");
  place.className = "wide";
  place.tabIndex = 0;
  table.replaceWith(place);
  place.append(table);
}

function toolButton(label: string, act: () => unknown): HTMLButtonElement {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.addEventListener("click", () => void act());
  return button;
}
