/* One log, live: read from the program, kept as lines, drawn at most once a frame. It is read anew after it ended. */
import { open, segment, told } from "../api/client";
import { ALL, type Filter, Lines } from "./lines";

const PAUSE = 3000; // ms between two tries

export class Tail {
  private readonly lines = new Lines();
  private drawn = false;
  private frame = 0;
  /** Moves whenever `shown` is another one. */
  version = $state(0);
  error = $state("");

  /** `source`: proxy, upstream, or a model. */
  constructor(readonly source: string) {}

  get shown(): readonly string[] {
    return this.lines.shown;
  }

  get count(): number {
    return this.lines.count;
  }

  get dropped(): number {
    return this.lines.dropped;
  }

  /** Read until what it returns is called. */
  start(): () => void {
    const stopper = new AbortController();
    void this.stay(stopper.signal);
    return () => {
      stopper.abort();
      cancelAnimationFrame(this.frame);
      this.drawn = false;
    };
  }

  apply(filter: Filter): void {
    this.lines.apply(filter);
    this.draw();
  }

  clear(): void {
    this.lines.clear();
    this.draw();
  }

  private async stay(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      try {
        await this.read(stop);
      } catch (error) {
        if (stop.aborted) return;
        this.error = told(error);
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  }

  private async read(stop: AbortSignal): Promise<void> {
    const answer = await open(`logs/stream/${segment(this.source)}`, { signal: stop });
    this.lines.clear(); // the history comes again
    this.error = "";
    if (!answer.body) return;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      this.lines.feed(value);
      this.draw();
    }
  }

  private draw(): void {
    if (this.drawn) return;
    this.drawn = true;
    this.frame = requestAnimationFrame(() => {
      this.drawn = false;
      this.version += 1;
    });
  }
}

export { ALL };
