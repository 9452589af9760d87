/* The file that is edited: what is wrong with its text and what it would change is asked for while a person types. */
import { ask, told } from "../../lib/api/client";
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
    return this.file !== undefined && this.text !== this.file.text;
  }

  get problems(): PlacedProblem[] {
    return this.trial?.problems ?? [];
  }

  /** Read everything anew; what was typed and not saved is gone. */
  async open(path = this.file?.path): Promise<void> {
    try {
      this.page = await ask<ConfigPage>("api/config");
      this.choose(this.page.files.find((one) => one.path === path) ?? this.page.files[0]);
      this.error = "";
    } catch (error) {
      this.error = told(error);
    }
  }

  choose(file: ConfigFile | undefined): void {
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
    const { backup } = await ask<{ backup: string }>("api/config", { method: "PUT", body });
    await this.open(file.path);
    this.saved = backup;
  }
}
