/* The voices of a speech server, in the three forms in which servers tell them. */

export const DEFAULT_VOICES: readonly string[] = ["alloy", "ash", "coral", "echo", "fable", "nova", "shimmer"];

type Told = string | { id?: string; voice_id?: string; name?: string };

/** Voices as a list, or below `voices` or `data`; each a name or an object. [] if there are none. */
export function voicesOf(answer: unknown): string[] {
  const { voices, data } = (answer ?? {}) as { voices?: unknown; data?: unknown };
  const list = [answer, voices, data].find(Array.isArray) as Told[] | undefined;
  const names = (list ?? []).map((one) =>
    typeof one === "string" ? one : (one?.id ?? one?.voice_id ?? one?.name ?? ""),
  );
  return [...new Set(names.filter(Boolean))];
}

/** The ending of a file with this sound. */
export function ending(type: string): string {
  const kind = /^audio\/(?:x-)?(\w+)/.exec(type)?.[1] ?? "mpeg";
  return kind === "mpeg" ? "mp3" : kind;
}
