/* What is drawn, how, and the drawing under way. */
import { told } from "../../../lib/api/client";
import { stored } from "../../../lib/stores/stored.svelte";
import { askModel } from "../asking";
import { Job } from "../job.svelte";
import { chosen } from "../models.svelte";
import { asked, DEFAULTS, drawn, lorasOf, type Lora, type Settings, type Used } from "./bodies";

class Images {
  prompt = $state("");
  loras = $state.raw<Lora[]>(); // those that the server has; undefined: not asked yet
  used = $state.raw<Used[]>([]);
  loading = $state(false);
  fault = $state(""); // why there are no LoRAs
  job = new Job<ReturnType<typeof drawn>>();
  private kept = stored<Partial<Settings>>("playground.image", {});

  get settings(): Settings {
    return { ...DEFAULTS, ...this.kept.value };
  }

  set(change: Partial<Settings>): void {
    this.kept.value = { ...this.kept.value, ...change };
  }

  async generate(): Promise<void> {
    const { path, body } = asked({
      model: chosen.images.id,
      prompt: this.prompt.trim(),
      settings: this.settings,
      loras: this.used,
    });
    await this.job.run(async (asking) => drawn(await askModel(path, { ...asking, method: "POST", body })));
  }

  clear(): void {
    this.job.clear();
    this.prompt = "";
  }

  /** Ask the server which LoRAs it has; that starts its model. */
  async load(): Promise<void> {
    this.loading = true;
    try {
      this.loras = lorasOf(await askModel(`sdapi/v1/loras?model=${encodeURIComponent(chosen.images.id)}`, {}));
      this.fault = this.loras.length ? "" : "This server has no LoRAs.";
    } catch (error) {
      this.fault = told(error);
    } finally {
      this.loading = false;
    }
  }

  use(path: string): void {
    const lora = this.loras?.find((one) => one.path === path);
    if (lora && !this.used.some((one) => one.path === path)) this.used = [...this.used, { ...lora, weight: 1 }];
  }

  weigh(path: string, weight: number): void {
    this.used = this.used.map((one) => (one.path === path ? { ...one, weight } : one));
  }

  drop(path: string): void {
    this.used = this.used.filter((one) => one.path !== path);
  }
}

export const images = new Images();
