/* One block of Markdown as elements that can do no harm.
 *
 * What a model writes is hostile: it may have read a page that tells it what to write. So of its HTML only plain tags are
 * taken as such (dialect.ts), and the whole goes through DOMPurify with a short list of what is allowed. That comes back as
 * elements, not as text that would be parsed a second time.
 * Nothing of it can run, style the page, name an element of it, send a form, load anything, or lead to an address of
 * bioproxy itself, where a click would be taken for the person's own wish. */
import DOMPurify from "dompurify";
import { Lexer, Parser } from "marked";
import type { Block } from "./blocks";
import { options } from "./dialect";
import { dressed } from "./dress";

const TAGS = (
  "a b blockquote br code del details dd dl dt em h1 h2 h3 h4 h5 h6 hr i img input ins kbd li mark ol p pre q s samp " +
  "small span strong sub summary sup table tbody td tfoot th thead tr u ul var"
).split(" ");
const ATTRIBUTES =
  "align alt checked colspan data-lang data-math disabled href open rowspan src start title type".split(" ");
const PICTURE = /^data:image\/(png|jpeg|gif|webp|avif);base64,/;

/** A picture is loaded as soon as it belongs to the page, even before it is shown, and an address of ours may do something
 * when it is asked for. So its address is taken away while it still belongs to nothing. */
const purifier = DOMPurify(window);
purifier.addHook("afterSanitizeAttributes", (element) => {
  const from = element.getAttribute("src");
  if (from === null || PICTURE.test(from)) return;
  element.removeAttribute("src");
  element.setAttribute("data-from", from);
});

/** The elements of a block, with `final` also its colours and formulas (they cost time that a stream has not). */
export function rendered(block: Block, final: boolean): DocumentFragment {
  if (block.plain) return unparsed(block.raw);
  try {
    const lexer = new Lexer(options);
    lexer.tokens.links = block.links;
    return dressed(harmless(Parser.parse(lexer.lex(block.raw), options)), final);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return unparsed(block.raw); // nested too deeply for the stack
  }
}

/** HTML as elements without anything that could do harm. */
export function harmless(html: string): DocumentFragment {
  return purifier.sanitize(html, {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  });
}

function unparsed(text: string): DocumentFragment {
  const fragment = document.createDocumentFragment();
  const element = document.createElement("p");
  element.className = "unparsed";
  element.textContent = text;
  fragment.append(element);
  return fragment;
}
