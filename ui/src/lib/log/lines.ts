/* A log as lines: what comes in pieces is cut, the oldest go when there are too many, and a filter looks at each once. */
import { plain } from "./ansi";
import { atLeast, type Level } from "./level";

export const MOST_LINES = 100_000;
export const MOST_SEARCHED = 10_000; // characters of a line that a filter looks at

export interface Filter {
  pattern: RegExp | undefined;
  least: Level;
}

export const ALL: Filter = { pattern: undefined, least: "debug" };

/** What a person typed as a pattern, without case; what is wrong with it, else. */
export function patternOf(text: string): { pattern?: RegExp; error?: string } {
  if (text === "") return {};
  try {
    return { pattern: new RegExp(text, "i") };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}

export class Lines {
  private all: string[] = [];
  private open = ""; // the last line, while its end is not there yet
  private filter = ALL;
  dropped = 0;
  shown: string[] = [];

  constructor(private readonly most = MOST_LINES) {}

  get count(): number {
    return this.all.length;
  }

  /** Add a piece of the log. */
  feed(text: string): void {
    const parts = (this.open + text).split(/\r?\n/);
    this.open = parts.pop() ?? "";
    for (const line of parts) {
      this.all.push(line);
      if (this.fits(line)) this.shown.push(line);
    }
    if (this.all.length > this.most * 1.1) this.shorten();
  }

  /** Show only what fits from now on, of all that is there. */
  apply(filter: Filter): void {
    this.filter = filter;
    this.shown = filter === ALL ? [...this.all] : this.all.filter((line) => this.fits(line));
  }

  clear(): void {
    this.all = [];
    this.shown = [];
    this.open = "";
    this.dropped = 0;
  }

  private shorten(): void {
    const over = this.all.length - this.most;
    this.all = this.all.slice(over);
    this.dropped += over;
    this.apply(this.filter);
  }

  private fits(line: string): boolean {
    const { pattern, least } = this.filter;
    return atLeast(line, least) && (!pattern || pattern.test(plain(line.slice(0, MOST_SEARCHED))));
  }
}
