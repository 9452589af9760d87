/* The names that models can be asked by, and which one each tab uses. */
import { told } from "../../lib/api/client";
import type { ListedModel, ModelList } from "../../lib/api/types";
import { stored, type Stored } from "../../lib/stores/stored.svelte";
import { askModel } from "./asking";
import { first, groups, listed, type Capability, type Group } from "./catalogue";

class Models {
  list = $state.raw<ListedModel[]>([]);
  fault = $state("");
  none = $state(false); // the list was read, and is empty

  async load(): Promise<void> {
    try {
      const { data } = await askModel<Partial<ModelList>>("v1/models", {});
      this.list = listed(data);
      this.none = !this.list.length;
      this.fault = "";
    } catch (error) {
      this.fault = told(error);
    }
  }
}

export const models = new Models();

/** The model that a tab uses: the one chosen last, else a fitting one. */
export class Chosen {
  private kept: Stored<string>;

  constructor(
    tab: string,
    readonly wanted: readonly Capability[] = [],
  ) {
    this.kept = stored(`playground.${tab}.model`, "");
  }

  get groups(): Group[] {
    return groups(models.list, this.wanted);
  }

  get id(): string {
    return this.kept.value || first(this.groups);
  }

  set id(next: string) {
    this.kept.value = next;
  }
}

export const chosen = {
  chat: new Chosen("chat"),
  images: new Chosen("images", ["image_generation", "image_to_image"]),
  speech: new Chosen("speech", ["audio_speech"]),
  transcription: new Chosen("transcription", ["audio_transcriptions"]),
  rerank: new Chosen("rerank", ["reranker"]),
};
