/* One chat that is open: its turns, what is being written, and the answer that runs. It goes on while another page or
 * another chat is looked at. */
import { told } from "../../../lib/api/client";
import { playing } from "../../../lib/stores/playing.svelte";
import { clock } from "../../../lib/stores/clock.svelte";
import { newRequest } from "../asking";
import { isPeer } from "../catalogue";
import { models } from "../models.svelte";
import { judged, read } from "./pictures";
import { run } from "./run";
import { answer, isRunning, question, type Chat, type Parameters, type Picture, type Turn } from "./turns";

const KEEP_EVERY = 2000; // ms, while an answer runs
const LIGHT = 5_000_000; // characters of pictures, up to which it is kept that often

export interface Asked {
  model: string;
  parameters: Parameters;
}

export class Conversation {
  chat: Chat;
  running = $state(false);
  text = $state(""); // what is being written
  pictures = $state.raw<Picture[]>([]);

  elsewhere = false; // another tab answers

  private adding: Promise<unknown> = Promise.resolve();
  private stopper: AbortController | undefined;
  private seen: string[] = []; // the turns that are or were in it

  /** `keep` is called whenever there is something new to keep, `part` before a question is asked. */
  constructor(
    chat: Chat,
    private readonly keep: (chat: Chat) => void,
    private readonly part: (conversation: Conversation) => Promise<void>,
  ) {
    this.chat = $state(chat);
    this.see();
  }

  /** Another tab has gone on with it, and this one follows. */
  follow(chat: Chat): void {
    this.chat = chat;
    this.elsewhere = chat.turns.some(isRunning);
    this.see();
  }

  private see(): void {
    for (const { id } of this.chat.turns) if (!this.seen.includes(id)) this.seen.push(id);
  }

  /** Whether one of these turns was never here: another tab goes on with the chat. */
  lacks(turns: readonly string[]): boolean {
    return turns.some((id) => !this.seen.includes(id));
  }

  /** Whether something is written that was not sent. */
  get isWritten(): boolean {
    return this.text !== "" || this.pictures.length > 0;
  }

  /** Whether nothing was asked, and nothing is written. */
  get isUnused(): boolean {
    return !this.chat.turns.length && !this.isWritten;
  }

  /** Send what was written. */
  async send(asked: Asked): Promise<void> {
    const text = this.text.trim();
    if (this.running || (!text && !this.pictures.length)) return;
    this.chat.turns.push(question(text, this.pictures));
    this.text = "";
    this.pictures = [];
    await this.answer(asked);
  }

  /** Answer the last question again: the answer at `index` and what follows are gone. */
  async again(index: number, asked: Asked): Promise<void> {
    if (this.running) return;
    this.chat.turns.length = index;
    await this.answer(asked);
  }

  /** The question at `index` is another one, and answered anew. */
  async edit(index: number, text: string, asked: Asked): Promise<void> {
    const turn = this.chat.turns[index];
    if (this.running || !turn) return;
    turn.text = text;
    await this.again(index + 1, asked);
  }

  /** Add pictures, as many as go with a message; a sentence for each file that is none, or too many. */
  add(files: readonly File[]): Promise<string[]> {
    const added = this.adding.then(async () => {
      const { good, refused } = judged(files, this.pictures.length);
      for (const file of good) {
        try {
          this.pictures = [...this.pictures, await read(file)];
        } catch (error) {
          refused.push(told(error));
        }
      }
      return refused;
    });
    this.adding = added.catch(() => undefined); // who added them is told
    return added;
  }

  /** End the answer that runs; what came of it stays. */
  stop(): void {
    this.stopper?.abort();
  }

  private async answer({ model, parameters }: Asked): Promise<void> {
    const { signal } = (this.stopper = new AbortController());
    this.running = true;
    this.see();
    await this.part(this);
    const { turns } = this.chat;
    const question = { model, parameters, peer: isPeer(models.list, model) };
    const before = $state.snapshot(turns).filter((turn) => turn.text || turn.pictures.length);
    turns.push(answer(model, newRequest(), clock.exact()));
    const turn = turns.at(-1) as Turn; // as the page sees it
    this.see();
    this.kept();
    const timer = setInterval(() => this.isLight() && this.kept(), KEEP_EVERY);
    const hide = () => document.visibilityState === "hidden" && this.kept(); // it may be the last that is heard
    const leave = () => this.stop(); // else the connection would seem to have broken
    document.addEventListener("visibilitychange", hide);
    addEventListener("pagehide", leave);
    const ended = () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", hide);
      removeEventListener("pagehide", leave);
      this.running = false;
      this.kept();
    };
    await playing.during(run(turn, { ...question, turns: before }, { session: this.chat.session, signal, ended }));
    this.kept();
  }

  private isLight(): boolean {
    const pictures = this.chat.turns.flatMap((turn) => turn.pictures);
    return pictures.reduce((sum, picture) => sum + picture.url.length, 0) < LIGHT;
  }

  private kept(): void {
    this.chat.updated = clock.now;
    this.keep($state.snapshot(this.chat));
  }
}
