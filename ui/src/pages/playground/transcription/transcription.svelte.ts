/* A recording, and what is said in it. */
import { askModel } from "../asking";
import { Job } from "../job.svelte";
import { chosen } from "../models.svelte";

export const KINDS = ".mp3,.wav,.ogg,audio/mpeg,audio/wav,audio/ogg";

/** Whether it is a recording of a kind that speech servers read; the name counts where the browser knows no type. */
export function isRecording(file: Pick<File, "name" | "type">): boolean {
  return /^audio\/((x-)?wav|wave|vnd\.wave|mpeg|mp3|ogg)$/.test(file.type) || /\.(mp3|wav|ogg)$/i.test(file.name);
}

class Transcription {
  file = $state.raw<File>();
  fault = $state("");
  job = new Job<string>();

  take(file: File | undefined): void {
    if (!file) return;
    this.fault = isRecording(file) ? "" : `${file.name} is not an MP3, WAV or OGG file.`;
    if (this.fault) return;
    this.file = file;
    this.job.clear();
  }

  async transcribe(): Promise<void> {
    const { file } = this;
    if (!file) return;
    const body = new FormData();
    body.append("model", chosen.transcription.id);
    body.append("file", file, file.name);
    await this.job.run(async (asking) => {
      const answer = await askModel<{ text?: string }>("v1/audio/transcriptions", { ...asking, method: "POST", body });
      return answer.text ?? "";
    });
  }

  clear(): void {
    this.file = undefined;
    this.fault = "";
    this.job.clear();
  }
}

export const transcription = new Transcription();
