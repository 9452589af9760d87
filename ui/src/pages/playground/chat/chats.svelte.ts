/* All chats: the list, the one that is looked at, and those that still run. */
import { toast } from "svelte-sonner";
import { told } from "../../../lib/api/client";
import { clock } from "../../../lib/stores/clock.svelte";
import { stored } from "../../../lib/stores/stored.svelte";
import { Conversation } from "./conversation.svelte";
import { apart, asJson, fresh, fromJson, headOf, ordered, titleOf, tooMany, woken, type Head } from "./history";
import { shelf } from "./shelf";
import { DEFAULTS, isRunning, type Chat, type Parameters } from "./turns";

const last = stored("playground.chat", "");
const tabs = new BroadcastChannel("bioproxy.chats"); // the others of this browser

/** What a tab tells the others, once the browser keeps it, or asks them: a chat that runs is kept anew, and so told. */
type News = { kept: Head } | { removed: string } | { wanted: string };

class Chats {
  heads = $state.raw<Head[]>([]); // newest first
  current = $state.raw(this.begun(fresh(clock.exact())));
  fault = $state(""); // why nothing is kept

  private open = new Map<string, Conversation>(); // those that run, and those in which something is written
  private removed = new Set<string>();
  private loaded: Promise<void> | undefined;

  constructor() {
    tabs.onmessage = ({ data }: MessageEvent<News>) => void this.hear(data);
  }

  /** Read the list, and go on where one was. */
  load(): Promise<void> {
    return (this.loaded ??= this.read());
  }

  /** Who has begun to write meanwhile is not led away from it. */
  private async read(): Promise<void> {
    const { value: wanted } = last;
    await this.guarded(async () => {
      const kept = await shelf.heads();
      this.heads = ordered([...this.heads, ...kept.filter(({ id }) => !this.heads.some((head) => head.id === id))]);
      const { current } = this;
      const chat = kept.some((head) => head.id === wanted) ? await shelf.chat(wanted) : undefined;
      if (chat && current === this.current && current.isUnused) this.wake(chat);
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
      if (chat) this.wake(chat);
    });
  }

  /** Whether an answer still runs in another tab that one knows. */
  private wake(chat: Chat): void {
    this.look(this.begun(woken(chat)));
    if (chat.turns.some(isRunning)) tabs.postMessage({ wanted: chat.id } satisfies News);
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
    this.removed.add(id);
    this.open.get(id)?.stop();
    await this.guarded(() => shelf.remove(id));
    this.forget(id);
    tabs.postMessage({ removed: id } satisfies News);
  }

  private forget(id: string): void {
    this.heads = this.heads.filter((head) => head.id !== id);
    if (this.current.chat.id === id) this.look(this.begun(fresh(clock.exact())));
    this.open.delete(id);
  }

  /** Another tab has changed a chat; the one that is open here follows once nothing in it runs but what it has. */
  private async hear(news: News): Promise<void> {
    if ("removed" in news) {
      this.removed.add(news.removed);
      this.open.get(news.removed)?.stop();
      return this.forget(news.removed);
    }
    if ("wanted" in news) {
      const asked = this.open.get(news.wanted);
      return asked?.running ? this.keep($state.snapshot(asked.chat)) : undefined;
    }
    const { id, title } = news.kept;
    this.list(news.kept);
    const here = this.open.get(id);
    if (here?.running && title !== titleOf(here.chat)) here.chat.title = title; // it was renamed there
    await this.guarded(async () => {
      const chat = this.open.has(id) ? await shelf.chat(id) : undefined;
      const open = this.open.get(id);
      if (!chat || !open || open.running) return;
      if (!chat.turns.some(isRunning) || !open.lacks(chat.turns.map((turn) => turn.id))) open.follow(chat);
    });
  }

  private list(head: Head): void {
    this.heads = ordered([head, ...this.heads.filter((one) => one.id !== head.id)]);
  }

  /** All that is kept, as a file; those that are open as they are now. */
  async exported(): Promise<string> {
    const kept = await shelf.chats();
    return asJson(kept.map((chat) => $state.snapshot(this.open.get(chat.id)?.chat) ?? chat));
  }

  /** Take the chats of a file; how many there were. */
  async imported(text: string): Promise<number> {
    const chats = fromJson(text);
    for (const chat of chats) await this.keep(chat);
    if (chats[0]) await this.show(chats[0].id);
    return chats.length;
  }

  private begun(chat: Chat): Conversation {
    return new Conversation(
      chat,
      (now) => void this.keep(now),
      (conversation) => this.part(conversation),
    );
  }

  /** If another tab goes on with a chat, what is asked here makes another one of it: else the last one would be kept. */
  private async part(conversation: Conversation): Promise<void> {
    const { chat, elsewhere } = conversation;
    const { id } = chat;
    await this.guarded(async () => {
      if (!elsewhere && !conversation.lacks((await shelf.head(id))?.turns ?? [])) return;
      conversation.follow(apart(elsewhere ? woken(chat) : chat));
      this.open.delete(id);
      this.open.set(conversation.chat.id, conversation);
      toast("Another tab has gone on with this chat, so it goes on here as one of its own.");
    });
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
    await this.guarded(async () => {
      await shelf.keep(chat, head);
      tabs.postMessage({ kept: head } satisfies News);
    });
    if (this.removed.has(chat.id)) return;
    this.list(head);
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
