/* What is spoken, by whom, and the sound that came of it. */
import { clock } from "../../../lib/stores/clock.svelte";
import { stored } from "../../../lib/stores/stored.svelte";
import { askModel, openModel } from "../asking";
import { Job } from "../job.svelte";
import { chosen } from "../models.svelte";
import { DEFAULT_VOICES, voicesOf } from "./voices";

export interface Spoken {
  blob: Blob;
  url: string; // of the blob
  voice: string;
  at: number; // unix time
}

class Speech {
  text = $state("");
  job = new Job<Spoken>();
  loading = $state(false);
  private known = stored<Record<string, string[]>>("playground.voices", {}); // by model
  private picked = stored("playground.voice", "");
  private automatic = stored("playground.autoplay", true);

  get voices(): readonly string[] {
    const known = this.known.value[chosen.speech.id];
    return known?.length ? known : DEFAULT_VOICES;
  }

  get voice(): string {
    return this.voices.includes(this.picked.value) ? this.picked.value : (this.voices[0] ?? "");
  }

  set voice(next: string) {
    this.picked.value = next;
  }

  get autoplay(): boolean {
    return this.automatic.value;
  }

  set autoplay(next: boolean) {
    this.automatic.value = next;
  }

  /** Ask the server for its voices; one that has no list keeps the usual ones. */
  async refresh(): Promise<void> {
    const model = chosen.speech.id;
    this.loading = true;
    const voices = await askModel(`v1/audio/voices?model=${encodeURIComponent(model)}`, {}).then(voicesOf, () => []);
    this.known.value = { ...this.known.value, [model]: voices };
    this.loading = false;
  }

  async generate(): Promise<void> {
    const before = this.job.result;
    const { voice } = this;
    const body = { model: chosen.speech.id, input: this.text.trim(), voice };
    await this.job.run(async (asking) => {
      const blob = await (await openModel("v1/audio/speech", { ...asking, method: "POST", body })).blob();
      return { blob, url: URL.createObjectURL(blob), voice, at: clock.exact() };
    });
    if (before) URL.revokeObjectURL(before.url);
  }

  clear(): void {
    if (this.job.result) URL.revokeObjectURL(this.job.result.url);
    this.job.clear();
    this.text = "";
  }
}

export const speech = new Speech();
