/* All chats: the list, the one that is looked at, and those that still run. */
import { told } from "../../../lib/api/client";
import { clock } from "../../../lib/stores/clock.svelte";
import { stored } from "../../../lib/stores/stored.svelte";
import { Conversation } from "./conversation.svelte";
import { asJson, fresh, fromJson, headOf, ordered, tooMany, woken, type Head } from "./history";
import { shelf } from "./shelf";
import { DEFAULTS, type Chat, type Parameters } from "./turns";

const last = stored("playground.chat", "");

class Chats {
  heads = $state.raw<Head[]>([]); // newest first
  current = $state.raw(this.begun(fresh(clock.exact())));
  fault = $state(""); // why nothing is kept

  private open = new Map<string, Conversation>(); // those that run, and those in which something is written
  private removed = new Set<string>();
  private loaded: Promise<void> | undefined;

  /** Read the list, and go on where one was. */
  load(): Promise<void> {
    return (this.loaded ??= this.read());
  }

  private async read(): Promise<void> {
    await this.guarded(async () => {
      this.heads = ordered(await shelf.heads());
      if (last.value && this.heads.some((head) => head.id === last.value)) await this.show(last.value);
    });
  }

  /** Begin another chat. */
  begin(): void {
    if (this.current.chat.turns.length) this.look(this.begun(fresh(clock.exact())));
  }

  async show(id: string): Promise<void> {
    const known = this.open.get(id);
    if (known) return this.look(known);
    await this.guarded(async () => {
      const chat = await shelf.chat(id);
      if (chat) this.look(this.begun(woken(chat)));
    });
  }

  isRunning(id: string): boolean {
    return this.open.get(id)?.running ?? false;
  }

  async rename(id: string, title: string): Promise<void> {
    await this.show(id);
    const { chat } = this.current;
    if (chat.id !== id) return;
    chat.title = title.trim();
    await this.keep($state.snapshot(chat));
  }

  async remove(id: string): Promise<void> {
    this.open.get(id)?.stop();
    this.open.delete(id);
    this.removed.add(id);
    await this.guarded(() => shelf.remove(id));
    this.heads = this.heads.filter((head) => head.id !== id);
    if (this.current.chat.id === id) this.look(this.begun(fresh(clock.exact())));
  }

  /** All that is kept, as a file. */
  async exported(): Promise<string> {
    return asJson(await shelf.chats());
  }

  /** Take the chats of a file; how many there were. */
  async imported(text: string): Promise<number> {
    const chats = fromJson(text);
    for (const chat of chats) await this.keep(chat);
    if (chats[0]) await this.show(chats[0].id);
    return chats.length;
  }

  private begun(chat: Chat): Conversation {
    return new Conversation(chat, (now) => void this.keep(now));
  }

  private look(conversation: Conversation): void {
    for (const [id, one] of this.open) if (!one.running && !one.isWritten) this.open.delete(id);
    this.open.set(this.current.chat.id, this.current);
    this.open.set(conversation.chat.id, conversation);
    this.current = conversation;
    last.value = conversation.chat.id;
  }

  /** The list has it once the browser does: who sees it there may close the page. */
  private async keep(chat: Chat): Promise<void> {
    if (this.removed.has(chat.id)) return;
    const head = headOf(chat);
    if (chat.id === this.current.chat.id) {
      last.value = chat.id;
      this.open.set(chat.id, this.current);
    }
    await this.guarded(() => shelf.keep(chat, head));
    if (this.removed.has(chat.id)) return;
    this.heads = ordered([head, ...this.heads.filter((one) => one.id !== chat.id)]);
    for (const old of tooMany(this.heads)) if (!this.isRunning(old.id)) await this.remove(old.id);
  }

  private async guarded(work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
      this.fault = "";
    } catch (error) {
      this.fault = `This browser keeps no chats: ${told(error)}`;
    }
  }
}

export const chats = new Chats();

const kept = stored<Partial<Parameters>>("playground.parameters", {});

/** How questions are asked; kept for the next time. */
export const parameters = {
  get now(): Parameters {
    return { ...DEFAULTS, ...kept.value };
  },
  set(change: Partial<Parameters>): void {
    kept.value = { ...kept.value, ...change };
  },
  reset(): void {
    kept.value = {};
  },
};
