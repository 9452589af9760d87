/* What kind of state a word of the program means. The words are models/state.py's, the engine's, the warm-up's. */
export type Kind = "good" | "busy" | "off" | "bad";

const KINDS: Readonly<Record<string, Kind>> = {
  ready: "good",
  warm: "good",
  ok: "good",
  live: "good",
  starting: "busy",
  loading: "busy",
  stopping: "busy",
  changing: "busy",
  warming: "busy",
  waiting: "busy",
  connecting: "busy",
  lost: "busy",
  failed: "bad",
  stuck: "bad",
  faulty: "bad",
  denied: "bad",
  error: "bad",
};

export function kindOf(state: string): Kind {
  return KINDS[state] ?? "off";
}
