/* How a model was started, and what its engine says that it is. */
import type { EngineFacts } from "../../lib/api/types";
import type { Station } from "../../lib/machine";

export interface Piece {
  text: string;
  added: boolean;
}

/** A command in pieces: what bioproxy added to it is marked. `rest`: what it added and that is not found in it. */
export function marked(command: string, added: readonly string[]): { pieces: Piece[]; rest: string[] } {
  let pieces: Piece[] = [{ text: command, added: false }];
  const rest: string[] = [];
  for (const text of added) {
    const found = pieces.findIndex((piece) => !piece.added && piece.text.includes(text));
    const piece = pieces[found];
    if (!piece) {
      rest.push(text);
      continue;
    }
    const at = piece.text.indexOf(text);
    const parts = [
      { text: piece.text.slice(0, at), added: false },
      { text, added: true },
      { text: piece.text.slice(at + text.length), added: false },
    ];
    pieces = [...pieces.slice(0, found), ...parts.filter((part) => part.text), ...pieces.slice(found + 1)];
  }
  return { pieces, rest };
}

/** A command with a flag on each line, as one would write it. */
export function lines(command: string): string {
  return command.replace(/ (?=--?[A-Za-z])/g, " \\\n  ");
}

/** The command of a model, or of one engine as far as it can be seen. */
export function commandOf(one: Station): string {
  if (one.full) return one.full.command;
  const facts = one.engine?.facts;
  const words = facts?.launched.length ? facts.launched : (facts?.command ?? []);
  return words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`)).join(" ");
}

type Write = (value: number) => string;

const DESCRIBED: Readonly<Record<string, [string, "count" | "memory"]>> = {
  n_params: ["Parameters", "count"],
  size: ["Weights", "memory"],
  n_vocab: ["Vocabulary", "count"],
  n_embd: ["Embedding", "count"],
  n_ctx_train: ["Trained context", "count"],
};

/** What an engine tells of itself, as names and texts. */
export function describedOf(facts: EngineFacts | null | undefined, write: Record<"count" | "memory", Write>) {
  if (!facts) return [];
  const told: [string, string][] = [
    ["Build", facts.build || "not told"],
    ["Slots", String(facts.slots || "not told")],
    ["Weights file", facts.model_path],
    ["Slot folder", facts.slot_folder],
    ["Working folder", facts.folder],
    ["Takes images or sound", facts.media ? "yes" : "no"],
    ["LoRA adapters", facts.adapters.map(([number, scale]) => `${number} at ${scale}`).join(", ")],
  ];
  for (const [name, value] of facts.described) {
    const known = DESCRIBED[name];
    if (known && typeof value === "number") told.push([known[0], write[known[1]](value)]);
  }
  return told.filter(([, text]) => text !== "");
}
