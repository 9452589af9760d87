/* The blocks that are shown of a text that grows, drawn anew not more often than the page can bear.
 *
 * What parses is loaded when there is something to parse; until then the text is shown as it is. A drawing that took
 * long is followed by a pause of the same length, so a huge answer makes the page slow to update, never deaf. */
import type { Attachment } from "svelte/attachments";
import type { Block, Blocks } from "./blocks";

const LEAST = 30; // ms between two drawings
const AT_ONCE = 60; // blocks that one drawing adds: a long text that is there at once comes in parts

type Parts = typeof import("./blocks") & typeof import("./render");
let parts: Parts | undefined;
let loading: Promise<Parts> | undefined;

async function load(): Promise<Parts> {
  loading ??= Promise.all([import("./blocks"), import("./render")]).then(([cut, draw]) => ({ ...cut, ...draw }));
  return (parts = await loading);
}

export class Shown {
  blocks = $state.raw<Block[]>([]);
  /** Puts a block into its place; undefined until that is loaded. */
  put = $state.raw<(block: Block, final: boolean) => Attachment>();

  private wanted = "";
  private count = 0; // of blocks that are drawn
  private cutter: Blocks | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private free = 0; // when drawing is allowed again
  private drawn = new WeakMap<Element, [Block, boolean]>();

  show(text: string, growing: boolean): void {
    this.wanted = text;
    if (!parts) {
      void load().then(() => this.update());
    } else if (!growing) this.update();
    else this.timer ??= setTimeout(() => this.update(), Math.max(LEAST, this.free - performance.now()));
  }

  stop(): void {
    clearTimeout(this.timer);
  }

  private update(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (!parts) return;
    const began = performance.now();
    this.cutter ??= new parts.Blocks();
    this.put ??= this.putter(parts);
    const all = this.cutter.of(this.wanted).filter((block) => block.raw.trim());
    this.count = Math.min(all.length, this.count + AT_ONCE);
    this.blocks = all.slice(0, this.count);
    if (this.count < all.length) this.timer = setTimeout(() => this.update());
    requestAnimationFrame(() => {
      const now = performance.now();
      this.free = now + (now - began);
    });
  }

  private putter({ rendered }: Parts) {
    return (block: Block, final: boolean): Attachment =>
      (element) => {
        const [before, done] = this.drawn.get(element) ?? [];
        if (before === block && (done || !final)) return;
        this.drawn.set(element, [block, final]);
        element.replaceChildren(rendered(block, final));
      };
  }
}
