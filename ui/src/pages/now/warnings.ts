/* Everything that a person should know and mend: what the program says in its own words, and what to do about it. */
import type { AnyStatus, ModelStatus } from "../../lib/api/types";
import { isFleet, pageOf, stations, templates, type Station } from "../../lib/machine";
import { firstLine, sentence } from "../../lib/said";

export interface Warning {
  level: "bad" | "note"; // bad: something does not work; note: it works, and could do better
  text: string;
  todo: string; // "" if the text says it already
  href: string; // where it is mended, or seen; ""
  models: readonly string[]; // whom it concerns; [] for the program
  retry: number | null; // unix time of the program's own next try
}

const PAUSES: Readonly<Record<string, string>> = {
  disk: "Free space on the disk, or choose another folder (kv.directory). It is tried again by itself.",
  engine: "Look at the engine's log; it could not write its slot file. It is tried again by itself.",
  folder: "Make sure that the folder exists and can be written to. It is tried again by itself.",
  min_free: "Free space on the disk, or lower kv.min_free. Saving goes on by itself.",
  model: "The engine refuses to save this model's cache; its log says why.",
  short: "The engine wrote less than it said: look at the disk and at the engine's log.",
  timeout: "The disk or the engine is slow. Raise kv.save_timeout if that is normal here.",
  write_budget: "The day's budget of written bytes is used up (kv.write_budget). Saving goes on tomorrow.",
};

/** The worst first; the same sentence of several models stands once. */
export function warnings(status: AnyStatus | undefined): Warning[] {
  if (!status) return [];
  const all = [
    ...ofConfiguration(status),
    ...stations(status).flatMap((one) => ofStation(one, isFleet(status), status.pause !== null)),
    ...ofTemplates(status),
    ...(isFleet(status) && status.store.fault
      ? [bad(`The activity table is not written: ${status.store.fault}`, "Make sure that its file can be written.")]
      : []),
    ...(isFleet(status) && status.logbook.console?.fault
      ? [bad(`Standard error takes no more lines: ${status.logbook.console.fault}`, "The logs are here.", "#/logs")]
      : []),
    ...status.notes.map((text) => note(text)),
  ];
  return together(all).sort((one, other) => rank(one) - rank(other));
}

const rank = (one: Warning) => (one.level === "bad" ? 0 : 1);

function bad(text: string, todo = "", href = "", more: Partial<Warning> = {}): Warning {
  return { level: "bad", text: sentence(firstLine(text)), todo, href, models: [], retry: null, ...more };
}

function note(text: string, todo = "", href = "", more: Partial<Warning> = {}): Warning {
  return { ...bad(text, todo, href, more), level: "note" };
}

function ofConfiguration({ config }: AnyStatus): Warning[] {
  const failed = config.reload_error
    ? [
        bad(
          `The last reload of the configuration failed: ${config.reload_error}`,
          "The previous configuration stays in force. Correct the file, then reload.",
          "#/config",
        ),
      ]
    : [];
  const late = config.late.length
    ? [note(`Changed in the configuration, and in force after a restart: ${config.late.join(", ")}`)]
    : [];
  return [
    ...failed,
    ...late,
    ...config.warnings.map((text) => note(text, "Correct it in the configuration.", "#/config")),
  ];
}

function ofStation(one: Station, many: boolean, paused: boolean): Warning[] {
  const models = many ? [one.model] : [];
  const { kv, engine } = one;
  const found = kv.notes.map((text) => note(text, "", "", { models }));
  found.push(...(engine?.facts?.capabilities.notes ?? []).map((text) => note(text, "", "", { models })));
  if (kv.paused) {
    found.push(bad(`Saving snapshots is paused: ${kv.reason}`, PAUSES[kv.paused] ?? "", "#/cache", { models }));
  }
  for (const target of one.warmup.targets) {
    if (target.state !== "failed" && target.state !== "too long") continue;
    const todo = target.state === "too long" ? "Shorten it, or start the engine with a larger context (-c)." : "";
    found.push(
      note(`${target.prefix || `head ${target.head}`} is not warm: ${target.text}`, todo, "#/templates", { models }),
    );
  }
  return [...found, ...(one.full ? ofProcess(one.full) : paused ? [] : ofEngine(one))];
}

function ofProcess(one: ModelStatus): Warning[] {
  const models = [one.model];
  const found: Warning[] = [];
  if (one.state === "failed") {
    const tries = one.schedule.failures > 1 ? `, ${one.schedule.failures} times in a row` : "";
    const todo = "Its log says more. It is tried again with the next request, or when you load it.";
    const more = { models, retry: one.schedule.retry_at };
    found.push(bad(`The model did not start${tries}: ${one.schedule.reason}`, todo, pageOf(one.model), more));
  }
  if (one.engine?.state === "stuck") {
    found.push(bad(`The engine is stuck: ${one.engine.reason}`, "", pageOf(one.model), { models }));
  }
  return found;
}

function ofEngine({ engine }: Station): Warning[] {
  if (!engine || engine.state === "ready" || engine.state === "loading") return [];
  const todo = engine.state === "absent" ? "Start the engine, or check its address (backend_url)." : "";
  return [bad(`The engine at ${engine.url} is ${engine.state}: ${engine.reason}`, todo, "#/logs")];
}

function ofTemplates(status: AnyStatus): Warning[] {
  return templates(status)
    .filter((one) => one.state === "fault")
    .map((one) =>
      bad(
        `${one.prefix} cannot be read: ${one.last_error}`,
        "Its last good text stays in use. Mend the file; it is read again by itself.",
        "#/templates",
        { models: one.model ? [one.model] : [] },
      ),
    );
}

/** One warning for each text, with all models that it concerns. */
function together(all: readonly Warning[]): Warning[] {
  const found = new Map<string, Warning>();
  for (const one of all) {
    const same = found.get(one.text);
    found.set(one.text, same ? { ...same, models: [...new Set([...same.models, ...one.models])] } : one);
  }
  return [...found.values()];
}
