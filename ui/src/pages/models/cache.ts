/* What a model's page says of its cache, in words. */
import type { AnyStatus, KvStatistics, SnapshotStatistics } from "../../lib/api/types";
import { bytes, count, rate } from "../../lib/format";
import { isFleet } from "../../lib/machine";

type Lines = readonly (readonly [string, string])[];

/** What the engine was measured to do. */
export function speedsOf(kv: KvStatistics): Lines {
  const { prefill, restore, save, token_bytes } = kv.speeds;
  return [
    ["Reads prompts at", `${rate(1 / prefill)} tokens/s`],
    ["Restores at", `${bytes(restore)}/s`],
    ["Saves at", `${bytes(save)}/s`],
    ["A token takes", token_bytes ? bytes(token_bytes) : "not measured yet"],
  ];
}

const RESTORES: Readonly<Record<string, string>> = {
  ok: "helped",
  failed: "failed",
  worthless: "did not help",
  displaced: "displaced before use",
  unused: "not used by the request",
  skipped: "left out because they would not pay",
};

/** What happened since the start, by kind; what never did is left out. */
export function countsOf(kv: KvStatistics): Lines {
  const found: [string, string][] = [];
  const add = (
    name: string,
    counts: Readonly<Record<string, number>>,
    words: Readonly<Record<string, string>> = {},
  ) => {
    const some = Object.entries(counts).filter(([, value]) => value > 0);
    if (some.length)
      found.push([name, some.map(([kind, value]) => `${count(value)} ${words[kind] ?? kind}`).join(", ")]);
  };
  add("Restores", kv.restores, RESTORES);
  add("Snapshots dropped", kv.dropped);
  add("Saves refused", kv.refused);
  add("Conversations lost", kv.lost);
  return found;
}

const ANSWERS: Readonly<Record<string, string>> = {
  unknown: "not tried yet",
  worthless: "no, so none is kept for that",
  good: "yes",
  works: "yes",
};

/** Policy, fingerprint and what restores can do here. */
export function answersOf(kv: KvStatistics): Lines {
  const yes = (answer: string) => ANSWERS[answer] ?? answer;
  return [
    ["Policy", kv.policy],
    ["Snapshots are", [kv.restoring ? "restored" : "not restored", kv.saving ? "saved" : "not saved"].join(" and ")],
    ["Folder", kv.directory || "none"],
    ["Fingerprint", kv.fingerprint ? kv.fingerprint.slice(0, 16) : "not known: the engine was not met yet"],
    ["It stands for", kv.visible.join(", ") || "nothing yet"],
    ["It cannot see", kv.hidden.join(", ") || "nothing that matters"],
    ["Build", [kv.build || "not known", kv.build_check].filter(Boolean).join("; ")],
    ["A restore helps a prompt that is repeated", yes(kv.repeating)],
    ["A restore helps a prompt that ends in another way", yes(kv.diverging)],
  ];
}

/** The snapshots of one model: of many those whose model is known to be it, of one engine all. */
export function snapshotsOf(status: AnyStatus | undefined, model: string): SnapshotStatistics[] {
  if (!status) return [];
  if (!isFleet(status)) return status.snapshots;
  return status.snapshots.filter((one) => one.models.includes(model));
}
