/* Where one request's time went, as bars on a common scale. */
import type { RequestPart } from "../../lib/api/types";
import { duration, percent } from "../../lib/format";

export interface Bar {
  name: string;
  label: string;
  about: string;
  left: number; // percent of the whole
  width: number;
  colour: string; // a token of design/tokens.css
  text: string;
  share: string;
}

export interface Tick {
  left: number;
  text: string;
}

interface Meaning {
  label: string;
  about: string;
  colour: string;
}

const SHORTEST = 0.0005; // seconds: less reads as none
const WAIT = "--edge";
const SWAP = "--busy";
const CACHE = "--cached";
const PARTS: Readonly<Record<string, Meaning>> = {
  in_use: { label: "other models in use", about: "requests of other models had to end first", colour: WAIT },
  linger: { label: "tool calls of another", about: "another model was in the middle of tool calls", colour: WAIT },
  min_resident: { label: "another just loaded", about: "another model was loaded a moment before", colour: WAIT },
  stop: { label: "stop of others", about: "other models stopped to make room", colour: SWAP },
  pause: { label: "second try", about: "a start failed and was tried once more", colour: SWAP },
  start: { label: "load", about: "the model's process started and loaded its weights", colour: SWAP },
  attach: { label: "look at the engine", about: "we asked the engine what it is", colour: SWAP },
  "": { label: "model", about: "the model was not ready", colour: SWAP },
  queue: { label: "queue", about: "all of the engine's slots were busy", colour: WAIT },
  save: { label: "save", about: "what was in memory was saved to disk", colour: CACHE },
  restore: { label: "restore", about: "the cache came back from disk", colour: CACHE },
  prefill: { label: "prefill", about: "the engine read the prompt", colour: "--evaluated" },
  engine: {
    label: "engine",
    about: "until the engine's first byte; it did not say what it did",
    colour: "--evaluated",
  },
  decode: { label: "decode", about: "the engine wrote the answer", colour: "--generated" },
  answer: { label: "answer", about: "from the first byte to the last", colour: "--generated" },
  other: { label: "other", about: "none of the above: network, parsing, the client's reading", colour: WAIT },
};

export function barsOf(parts: readonly RequestPart[], total: number): Bar[] {
  const whole = total || 1;
  return parts
    .filter((part) => part.seconds >= SHORTEST)
    .map(({ name, at, seconds }) => ({
      name,
      ...(PARTS[name] ?? { label: name, about: "", colour: WAIT }),
      left: (at / whole) * 100,
      width: Math.min(100, (seconds / whole) * 100),
      text: duration(seconds),
      share: percent(seconds / whole),
    }));
}

/** Marks at round times, at most six of them after the zero. */
export function ticks(total: number): Tick[] {
  if (!(total > 0)) return [];
  const rough = total / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(0.001, ([1, 2, 5, 10].find((times) => times * power >= rough) ?? 10) * power);
  const marks: Tick[] = [];
  for (let n = 0; n * step <= total * 0.95; n++) {
    marks.push({ left: ((n * step) / total) * 100, text: n ? duration(n * step) : "0" });
  }
  return marks;
}
