/* Which Markdown is understood: GitHub's, line breaks as they were written, and LaTeX between `$`, `$$`, `\(` and `\[`.
 *
 * Formulas and code come out as `<code>` with a mark of what they are (`data-math`, `data-lang`); dress.ts makes them
 * what they are meant to be after the HTML was made harmless. */
import { Marked, type TokenizerAndRendererExtension, type Tokens } from "marked";

const INLINE = /^(?:\$(?!\s|\$)((?:\\.|[^\\\n$])+?)(?<!\s)\$(?!\d)|\\\(((?:[^\\\n]|\\(?!\)))+?)\\\))/;
const BLOCK =
  /^ {0,3}(?:\$\$((?:\\.|\\\n|[^\\$\n]|\n(?!\s*\n)|\$(?!\$))+?)\$\$|\\\[((?:[^\\\n]|\n(?!\s*\n)|\\(?!\]))+?)\\\])[ \t]*(?:\n|$)/;
const INSIDE = /^(?:\$\$((?:\\.|[^\\\n$])+?)\$\$|\\\[((?:[^\\\n]|\\(?!\]))+?)\\\])/; // a displayed one in a line of text
const LONGEST = 4000; // characters of a formula
const BEGINS = /\$(?![\s$])|\$\$(?!\$)|\\[([]/;
const BLOCK_BEGINS = /\n {0,3}(?:\$\$|\\\[)/; // marked asks from the second character of a block on

function formula(name: string, level: "block" | "inline", forms: readonly RegExp[], display: boolean) {
  return {
    name,
    level,
    start: (source: string) => {
      const at = level === "block" ? source.search(BLOCK_BEGINS) + 1 : source.search(BEGINS);
      return at < 0 || (level === "block" && at === 0) ? undefined : at;
    },
    tokenizer(source: string) {
      if (level === "inline" && source.slice(0, 3).search(BEGINS) !== 0) return undefined;
      const near = source.slice(0, LONGEST);
      const match = forms.map((form) => form.exec(near)).find((found) => found);
      return match ? { type: name, raw: match[0], text: (match[1] ?? match[2] ?? "").trim() } : undefined;
    },
    renderer: (token: Tokens.Generic) =>
      `<code data-math="${display ? "block" : "inline"}">${escaped(String(token.text))}</code>${level === "block" ? "\n" : ""}`,
  } satisfies TokenizerAndRendererExtension;
}

export function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

const PLAIN_TAGS = new Set(
  (
    "b blockquote br code del details dd dl dt em h1 h2 h3 h4 h5 h6 hr i ins kbd li mark ol p pre q s samp small span " +
    "strong sub summary sup table tbody td tfoot th thead tr u ul var"
  ).split(" "),
);
const TAG = /<(\/?)([a-z][a-z0-9]*)((?:\s[^<>]*)?)>|</gi;
const PLAIN_ATTRIBUTE = /\s(?:open|(?:align|colspan|rowspan|start)="\w{1,9}")(?=[\s/]|$)/gi;

/** HTML in Markdown: plain tags stay, without what could do anything. Others are shown as they were written: a block of
 * them as code, one in a line as text. */
function tamed(html: string, block: boolean): string {
  const foreign = [...html.matchAll(TAG)].some(([, , name]) => name && !PLAIN_TAGS.has(name.toLowerCase()));
  if (block && foreign) return code(html.trimEnd(), "html");
  return html.replace(TAG, (all: string, slash: string | undefined, name = "", rest = "") => {
    if (!PLAIN_TAGS.has(name.toLowerCase())) return escaped(all);
    return `<${slash}${name}${(rest.match(PLAIN_ATTRIBUTE) ?? []).join("")}>`;
  });
}

function code(text: string, language: string): string {
  return `<pre><code data-lang="${escaped(language)}">${escaped(text)}\n</code></pre>\n`;
}

const marked = new Marked({
  gfm: true,
  breaks: true,
  extensions: [
    formula("formulaBlock", "block", [BLOCK], true),
    formula("formulaShown", "inline", [INSIDE], true),
    formula("formula", "inline", [INLINE], false),
  ],
  renderer: {
    html: ({ text, block }) => tamed(text, block),
    code: ({ text, lang }) => code(text, lang?.split(/\s/)[0] ?? ""),
  },
});

export const options = marked.defaults;
