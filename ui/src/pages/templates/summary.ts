/* The templates as a table shows them: each with how warm it is on every model that has it. */
import type { AnyStatus, SnapshotStatistics, TargetStatistics, TemplateStatistics } from "../../lib/api/types";
import { count } from "../../lib/format";
import { stations, templates, type Station } from "../../lib/machine";
import type { Kind } from "../../lib/ui/state";

export interface State {
  word: string; // beside a shape
  kind: Kind;
  why: string; // a sentence, "" if the word says it all
}

export interface OnModel {
  model: string;
  state: State;
  tokens: number;
  targets: readonly TargetStatistics[];
  runs: boolean; // its engine, so that the state of a target counts
  warmedAt: number;
}

export interface Row {
  key: string;
  template: TemplateStatistics;
  owner: string; // the model whose own it is, "" if all share it
  trouble: State | undefined; // of the text, whatever the models say
  on: OnModel[];
  tokens: number;
  warmedAt: number;
  hits: Hits;
}

export interface Hits {
  requests: number;
  cached: number; // of these, how many found it in a slot or on disk
}

export function rows(status: AnyStatus | undefined): Row[] {
  if (status === undefined) return [];
  const all = stations(status);
  return templates(status).map(({ model: owner, ...template }) => {
    const having = all.filter((one) => one.model === owner || (!owner && !hasOwn(one)));
    const on = having.map((station) => onModel(template, station, status.snapshots));
    return {
      key: `${owner}\n${template.prefix}`,
      template,
      owner,
      trouble: troubleOf(template),
      on,
      tokens: Math.max(0, ...on.map((one) => one.tokens)),
      warmedAt: Math.max(0, ...on.map((one) => one.warmedAt)),
      hits: hitsOf(status.template_requests[template.prefix] ?? {}),
    };
  });
}

export type Targets = Pick<OnModel, "model" | "targets" | "runs"> & { state?: State };

/** The heads without a prefix on each model that has any: agents' system messages and tools. */
export function plainHeads(status: AnyStatus | undefined): Targets[] {
  const all = status ? stations(status) : [];
  const found = all.map(({ model, warmup }) => {
    return { model, targets: warmup.targets.filter((one) => !one.prefix), runs: warmup.ready };
  });
  return found.filter((one) => one.targets.length);
}

/** The state of one target, as the table of its template says it of all. */
export function targetState(target: TargetStatistics, { runs, state, targets }: Targets): State {
  if (runs) return stateOf([target]);
  if (state === NEVER || (state && targets.length === 1)) return state; // of several it is not known which is on disk
  return away(undefined);
}

/** Whether a model has templates of its own; then it has none of the shared ones. */
function hasOwn(station: Station): boolean {
  return station.full !== undefined && station.templates.length > 0;
}

function troubleOf(template: TemplateStatistics): State | undefined {
  if (template.state === "fault") {
    return { word: "faulty", kind: "bad", why: `${template.last_error}; the last good text stays in use` };
  }
  if (template.pending) {
    return { word: "changed", kind: "busy", why: "a change was seen, and counts once nothing has changed for a while" };
  }
  return undefined;
}

function onModel(template: TemplateStatistics, station: Station, snapshots: readonly SnapshotStatistics[]): OnModel {
  const targets = station.warmup.targets.filter((one) => one.prefix === template.prefix);
  const whose = `bp-${station.kv.fingerprint}-`; // a snapshot's name says which model it is of
  const kept = snapshots.find(
    (one) =>
      one.template &&
      one.prefix === template.prefix &&
      one.version === template.version &&
      one.name.startsWith(whose) &&
      !one.unused,
  );
  return {
    model: station.model,
    state: station.warmup.ready ? stateOf(targets) : isOther(station) ? NEVER : away(kept),
    tokens: Math.max(0, ...targets.map((one) => one.total)) || (kept?.tokens ?? 0),
    targets,
    runs: station.warmup.ready,
    warmedAt: Math.max(0, ...targets.map((one) => one.warmed_at)) || (kept?.created ?? 0),
  };
}

export const AWAY = "not loaded";

const NEVER: State = { word: "cannot be warmed", kind: "off", why: "its engine runs, and is no llama-server" };

/** Whether it runs, and nothing is asked of it because it is no llama-server. */
function isOther({ state, engine }: Station): boolean {
  return state === "ready" && engine === null;
}

function away(kept: SnapshotStatistics | undefined): State {
  return kept
    ? { word: "on disk", kind: "off", why: "the engine is not running; a restore makes it warm" }
    : { word: AWAY, kind: "off", why: "it is warmed when its engine runs" };
}

/** Of several heads the one that is furthest from warm decides. */
export function stateOf(targets: readonly TargetStatistics[]): State {
  const of = (state: TargetStatistics["state"]) => targets.find((one) => one.state === state);
  const failed = of("failed") ?? of("too long");
  if (failed) return { word: failed.state, kind: "bad", why: failed.text };
  const warming = of("warming");
  if (warming) return { word: progress(warming), kind: "busy", why: "" };
  if (of("waiting")) return { word: "waiting", kind: "busy", why: "users go first" };
  if (of("off")) return { word: "off", kind: "off", why: "warm-up is off (warmup.enabled)" };
  const short = of("too short");
  if (short) return { word: "too short", kind: "off", why: short.text };
  if (!targets.length) return { word: "not looked at", kind: "off", why: "" };
  if (of("warm")) return { word: "warm", kind: "good", why: "in the engine's memory, and not on disk" };
  return { word: "warm", kind: "good", why: "" };
}

function progress(target: TargetStatistics): string {
  return target.total ? `warming ${count(target.done)} of ${count(target.total)}` : "warming";
}

function hitsOf(found: Readonly<Record<string, number>>): Hits {
  const requests = Object.values(found).reduce((sum, one) => sum + one, 0);
  return { requests, cached: requests - (found.miss ?? 0) };
}

/** Where the program shows and warms it: a prefix that begins with a slash is written without it. */
export function address(prefix: string): string {
  return prefix.replace(/^\//, "").split("/").map(encodeURIComponent).join("/");
}

/** Changes whenever the template's page has to be asked for anew. */
export function signature(row: Row): string {
  const warmed = row.on.map((one) => `${one.state.word === "warm"} ${one.warmedAt}`);
  return [row.key, row.template.version, row.template.pending, row.template.changed_at, ...warmed].join("|");
}
