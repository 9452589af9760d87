/* The file that is edited: what is wrong with its text and what it would change is asked for while a person types. What
 * was typed stays while they look at another page, because it lives here, not in the page. */
import { ask, Failure, told } from "../../lib/api/client";
import type { ConfigFile, ConfigPage, ConfigTrial, PlacedProblem } from "../../lib/api/types";

const PAUSE = 500; // ms after the last key

export class Edit {
  page = $state.raw<ConfigPage>();
  file = $state.raw<ConfigFile>();
  text = $state("");
  trial = $state.raw<ConfigTrial>();
  error = $state("");
  saved = $state("");
  private timer: ReturnType<typeof setTimeout> | undefined;
  private asked = 0;

  get changed(): boolean {
    return this.file !== undefined && this.text !== (this.file.text ?? "");
  }

  get problems(): PlacedProblem[] {
    return this.trial?.problems ?? [];
  }

  /** Whether the file on the disk is by now another one than that which the text was made from. */
  get behind(): boolean {
    return this.changed && this.fresh !== undefined && this.fresh.digest !== this.file?.digest;
  }

  private get fresh(): ConfigFile | undefined {
    return this.page?.files.find((one) => one.path === this.file?.path);
  }

  /** Read everything anew; what was typed and not saved is gone. */
  async open(): Promise<void> {
    if (await this.read()) this.choose(this.fresh ?? this.page?.files[0]);
  }

  /** See what is in force by now; what was typed and not saved stays. */
  async look(): Promise<void> {
    if ((await this.read()) && (!this.changed || this.text === this.fresh?.text)) {
      this.choose(this.fresh ?? this.page?.files[0]);
    }
  }

  private async read(): Promise<boolean> {
    try {
      this.page = await ask<ConfigPage>("api/config");
      this.error = "";
      return true;
    } catch (error) {
      this.error = told(error);
      if (error instanceof Failure && (error.status === 401 || error.status === 403)) this.page = undefined;
      return false;
    }
  }

  /** The next save replaces what somebody else has written. */
  keepMine(): void {
    this.file = this.fresh;
  }

  choose(file: ConfigFile | undefined): void {
    if (file?.path !== this.file?.path) this.saved = "";
    this.file = file;
    this.text = file?.text ?? "";
    this.trial = undefined;
    clearTimeout(this.timer);
    this.asked += 1; // what a check of the text before says is no news any more
  }

  /** Another text: it is checked once a person pauses. */
  type(text: string): void {
    this.text = text;
    this.saved = "";
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.check(), PAUSE);
  }

  async check(): Promise<void> {
    const { file } = this;
    if (!file) return;
    const number = ++this.asked;
    try {
      const body = { path: file.path, text: this.text };
      const trial = await ask<ConfigTrial>("api/config/check", { method: "POST", body });
      if (number === this.asked) [this.trial, this.error] = [trial, ""];
    } catch (error) {
      if (number === this.asked) this.error = told(error);
    }
  }

  /** Save and reload; throws what went wrong. */
  async save(): Promise<void> {
    const { file } = this;
    if (!file) return;
    const body = { path: file.path, text: this.text, digest: file.digest };
    try {
      const { backup } = await ask<{ backup: string }>("api/config", { method: "PUT", body });
      await this.open();
      this.saved = backup;
    } catch (error) {
      await this.look(); // it may be in the file all the same, or somebody else's is
      throw error;
    }
  }
}

export const edit = new Edit();
