/* What a model's page says of its cache, in words. */
import type { AnyStatus, KvStatistics, SnapshotStatistics } from "../../lib/api/types";
import { bytes, count, rate } from "../../lib/format";
import { isFleet } from "../../lib/machine";

type Lines = readonly (readonly [string, string])[];

// what the program assumes before it has measured (kv/policy.py)
const ASSUMED = { prefill: 0.002, restore: 1e9, save: 5e8 } as const;

/** What the engine was measured to do. */
export function speedsOf({ speeds }: KvStatistics): Lines {
  const said = (name: keyof typeof ASSUMED, text: string) =>
    speeds[name] === ASSUMED[name] ? `${text}, assumed until it is measured` : text;
  return [
    ["Reads prompts at", said("prefill", `${rate(1 / speeds.prefill)} tokens/s`)],
    ["Restores at", said("restore", `${bytes(speeds.restore)}/s`)],
    ["Saves at", said("save", `${bytes(speeds.save)}/s`)],
    ["A token takes", speeds.token_bytes ? bytes(speeds.token_bytes) : "not measured yet"],
  ];
}

const RESTORES: Readonly<Record<string, string>> = {
  ok: "helped",
  failed: "failed",
  worthless: "did not help",
  displaced: "displaced before use",
  unused: "not used by the request",
  skipped: "not tried, because other requests ran",
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
export function answersOf(kv: KvStatistics, runs: boolean): Lines {
  const yes = (answer = "unknown") => ANSWERS[answer] ?? answer;
  const does = [kv.restoring ? "restored" : "not restored", kv.saving ? "saved" : "not saved"].join(" and ");
  const snapshots: [string, string] = ["Snapshots are", does];
  return [
    ["Policy", kv.policy],
    ...(runs ? [snapshots] : []), // of an engine that does not run it is not known
    ["Folder", kv.directory || "none"],
    ["Fingerprint", kv.fingerprint ? kv.fingerprint.slice(0, 16) : "not known: the engine was not met yet"],
    ["It stands for", kv.visible.join(", ") || "nothing yet"],
    ["It cannot see", kv.hidden.join(", ") || "nothing that matters"],
    ["Build", [kv.build || "not known", kv.build_check].filter(Boolean).join("; ")],
    ["The model has", kv.family || "not known"],
    ["A restore helps a template's next request", yes(kv.works.templates)],
    ["A restore helps a conversation that goes on", yes(kv.works.extends)],
    ["A restore helps a prompt that is repeated", yes(kv.works.repeats)],
    ["A restore helps a prompt that ends in another way", yes(kv.works.diverges)],
  ];
}

/** The snapshots of one model: of many those whose model is known to be it, of one engine all. */
export function snapshotsOf(status: AnyStatus | undefined, model: string): SnapshotStatistics[] {
  if (!status) return [];
  if (!isFleet(status)) return status.snapshots;
  return status.snapshots.filter((one) => one.models.includes(model));
}
