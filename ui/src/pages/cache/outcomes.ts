/* What became of restores and snapshots, and what is in the way of saving: sums over all models. */
import type { AnyStatus, KvStatistics } from "../../lib/api/types";
import { isFleet, stations } from "../../lib/machine";

export interface Outcome {
  name: string;
  about: string;
  count: number;
}

const RESTORES: Readonly<Record<string, string>> = {
  ok: "came back, and the engine used it",
  worthless: "came back, and the engine used too little of it",
  displaced: "came back, and was gone when the request came",
  unused: "brought back while nobody asked, and nobody went on from it",
  failed: "the engine refused it, or died",
  skipped: "not tried, because other requests ran",
};
const DROPPED: Readonly<Record<string, string>> = {
  replaced: "a newer one of the same conversation holds it all",
  budget: "the least worth, when the budget needed room",
  aged: "not used for kv.max_age",
  quarantined: "never used again; the table says why",
  changed: "somebody changed the file",
  missing: "somebody removed the file",
  deleted: "by hand",
};
const LOST: Readonly<Record<string, string>> = {
  busy: "other requests ran, and the engine keeps no copy",
  slow: "a user would have waited too long",
  failed: "the save failed",
  forgotten: "the engine's RAM cache no longer had it",
  ended: "the engine's process ended",
  unknown: "a request that did not come through bioproxy used the slot",
};
const REFUSED: Readonly<Record<string, string>> = {
  budget: "the budget is full of what is worth more",
  too_large: "larger than the budget alone",
  content: "the engine does not save such content",
  min_free: "too little is free on the disk",
  write_budget: "the day's write budget is used up",
  model: "the model's file has changed",
  folder: "the folder cannot be used",
};

export interface Outcomes {
  title: string;
  list: Outcome[];
}

/** What happened since the start, without what never did. */
export function outcomes(status: AnyStatus | undefined): Outcomes[] {
  const kvs = stations(status).map((one) => one.kv);
  const dropped = isFleet(status) ? status.shelves.map((one) => one.dropped) : kvs.map((kv) => kv.dropped);
  return [
    {
      title: "Restores",
      list: listed(
        kvs.map((kv) => kv.restores),
        RESTORES,
      ),
    },
    { title: "Left the disk", list: listed(dropped, DROPPED) },
    {
      title: "Not saved",
      list: listed(
        kvs.map((kv) => kv.refused),
        REFUSED,
      ),
    },
    {
      title: "Lost before a save",
      list: listed(
        kvs.map((kv) => kv.lost),
        LOST,
      ),
    },
  ].filter((one) => one.list.length > 0);
}

function listed(counts: readonly Record<string, number>[], about: Readonly<Record<string, string>>): Outcome[] {
  const sums = new Map<string, number>();
  for (const one of counts) {
    for (const [name, count] of Object.entries(one)) sums.set(name, (sums.get(name) ?? 0) + count);
  }
  const order = Object.keys(about);
  const place = (name: string) => (order.includes(name) ? order.indexOf(name) : order.length);
  return [...sums]
    .filter(([, count]) => count > 0)
    .sort(([one], [other]) => place(one) - place(other))
    .map(([name, count]) => ({ name, count, about: about[name] ?? "" }));
}

/** Why no snapshot is shown; `own`: to a key that sees templates alone. No folder is looked at before an engine was met. */
export function nothing(status: AnyStatus | undefined, own: boolean): string {
  if (!stations(status).some((one) => one.kv.fingerprint)) return "What is on disk is known once a model has run.";
  const rule = "A template is saved once it is warm, and a conversation once it was quiet for a while (kv.save_after)";
  return `${own ? "No template is" : "Nothing is"} on disk yet. ${rule}, if reading it back is faster than computing it again.`;
}

export interface Obstacle {
  model: string;
  what: string;
  why: string;
}

/** Why saving is paused, and on which models nothing is saved or restored at all. */
export function obstacles(status: AnyStatus | undefined): Obstacle[] {
  return stations(status).flatMap(({ model, kv, engine }) => {
    if (kv.paused) return [{ model, what: "Saving is paused", why: kv.reason }];
    if (kv.policy === "off" || engine?.state !== "ready" || !engine.facts?.build || (kv.saving && kv.restoring))
      return [];
    return [{ model, what: missing(kv), why: [kv.reason, ...kv.notes].filter(Boolean).join("; ") }];
  });
}

function missing(kv: KvStatistics): string {
  if (!kv.saving && !kv.restoring) return "Nothing is saved or restored";
  return kv.saving ? "Nothing is restored" : "Nothing is saved";
}
