/* Markdown in blocks, so that an answer that grows costs what its last block costs.
 *
 * Text is only ever added at the end, and what is added can change only what stands below the last empty line that has
 * text below it: a list goes on after an empty line, a paragraph becomes a heading by the line below it. So all blocks
 * before that are kept as they are, the same objects, and only the rest is cut anew. Text that is hostile by its size (a line of a megabyte,
 * a table of a hundred thousand rows) is not parsed at all: it is shown as it came. */
import { Lexer, type Links } from "marked";
import { options } from "./dialect";

export const LONGEST_LINE = 20_000; // characters of a line that is still parsed
const LONGEST_BLOCK = 60_000; // the same for a block
const LONGEST_CODE = 1_000_000; // code is not parsed further
const MOST_MARKS = 4000; // `[`, `*` and so on in a block: parsing takes the square of their number
const MARKS = /[[*_$<>`~]/g;

export interface Block {
  /** The source. */
  raw: string;
  /** Whether to parse it; otherwise it is shown as it is. */
  plain: boolean;
  /** Link definitions of the whole text: a link may stand before what it names. */
  links: Links;
}

export class Blocks {
  private text = "";
  private blocks: Block[] = [];
  private links: Links = {};
  private known = 0; // link definitions that the blocks were made with

  /** The blocks of a text. Those that did not change are the same objects as before. */
  of(given: string): Block[] {
    const text = given.includes("\r") ? given.replace(/\r\n?/g, "\n") : given;
    if (text === this.text) return this.blocks;
    if (!text.startsWith(this.text)) this.forget();
    const open = this.firstOpen();
    const kept = this.blocks.slice(0, open);
    const start = kept.reduce((sum, block) => sum + block.raw.length, 0);
    const found = this.cut(text.slice(start)).map((block, index) => same(block, this.blocks[open + index]));
    this.text = text;
    this.blocks = [...kept, ...found];
    if (Object.keys(this.links).length !== this.known) this.linksChanged();
    return this.blocks;
  }

  private forget(): void {
    this.text = "";
    this.blocks = [];
    this.links = {};
    this.known = 0;
  }

  /** Definitions came late: every block may have a link that now leads somewhere. */
  private linksChanged(): void {
    this.known = Object.keys(this.links).length;
    this.links = { ...this.links };
    this.blocks = this.blocks.map((block) => ({ ...block, links: this.links }));
  }

  /** From which block on more text may change something: the first one after the last empty line with text below it. */
  private firstOpen(): number {
    const empty = (at: number) => this.blocks[at]?.raw.trim() === "";
    let at = this.blocks.length - 1;
    while (at > 0 && empty(at)) at -= 1;
    while (at > 0 && !empty(at - 1) && !this.blocks[at - 1]?.raw.endsWith("\n\n")) at -= 1;
    return Math.max(0, at);
  }

  private cut(text: string): Block[] {
    const found: Block[] = [];
    let normal = "";
    for (const line of lines(text)) {
      if (line.length <= LONGEST_LINE) normal += line;
      else {
        found.push(...this.lexed(normal), this.block(line, true));
        normal = "";
      }
    }
    return [...found, ...this.lexed(normal)];
  }

  private lexed(text: string): Block[] {
    if (!text) return [];
    const lexer = new Lexer(options);
    lexer.tokens.links = this.links;
    try {
      const found = lexer.blockTokens(text, []).map(({ type, raw }) => this.block(raw, isHeavy(type, raw)));
      const whole = found.reduce((sum, { raw }) => sum + raw.length, 0) === text.length;
      return whole ? found : [this.block(text, isHeavy("", text))];
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      return [this.block(text, true)]; // nested too deeply for the stack
    }
  }

  private block(raw: string, plain: boolean): Block {
    return { raw, plain, links: this.links };
  }
}

/** Whether parsing it could take long enough to be felt. */
function isHeavy(type: string, raw: string): boolean {
  if (type === "code") return raw.length > LONGEST_CODE;
  return raw.length > LONGEST_BLOCK || (raw.length > MOST_MARKS && (raw.match(MARKS)?.length ?? 0) > MOST_MARKS);
}

/** The block as it was before, if it did not change. */
function same(block: Block, before: Block | undefined): Block {
  return before?.raw === block.raw && before.plain === block.plain && before.links === block.links ? before : block;
}

/** The lines with their ends. */
function* lines(text: string): Generator<string> {
  let start = 0;
  while (start < text.length) {
    const at = text.indexOf("\n", start);
    const end = at < 0 ? text.length : at + 1;
    yield text.slice(start, end);
    start = end;
  }
}
