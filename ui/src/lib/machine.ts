/* One engine is a fleet of one: what both kinds of a program show, read in one way. */
import { segment } from "./api/client";
import type { AnyStatus, EngineFacts, FleetStatus, ModelStatus, TemplateStatistics } from "./api/types";

/** Whether the program has many models. */
export function isFleet(status: AnyStatus | undefined): status is FleetStatus {
  return status !== undefined && "models" in status;
}

/** The parts that a model has, or the one engine. */
export type Station = Pick<ModelStatus, "model" | "state" | "gate" | "kv" | "warmup" | "engine" | "templates"> & {
  full?: ModelStatus; // with a process and a place in the schedule: one of many
};

/** All models, or the one engine under its own name. */
export function stations(status: AnyStatus | undefined): Station[] {
  if (status === undefined) return [];
  if (isFleet(status)) return status.models.map((one) => ({ ...one, full: one }));
  const { engine, gate, kv, warmup, templates } = status;
  return [{ model: engineName(engine.facts), state: engine.state, engine, gate, kv, warmup, templates }];
}

/** What the one engine is called: its alias, the name of its weights' file, or just that. */
function engineName(facts: EngineFacts | null): string {
  const file = facts?.model_path.split(/[\\/]/).at(-1) ?? "";
  return facts?.alias || file.replace(/\.gguf$/, "") || "engine";
}

/** All templates: those that all models share, then a model's own. */
export function templates(status: AnyStatus | undefined): (TemplateStatistics & { model: string })[] {
  if (status === undefined) return [];
  const shared = status.templates.map((one) => ({ ...one, model: "" }));
  if (!isFleet(status)) return shared;
  return [...shared, ...status.models.flatMap((of) => of.templates.map((one) => ({ ...one, model: of.model })))];
}

/** What a person calls a model: its name if the configuration gives one, else its id. */
export function titleOf(one: Station): string {
  return one.full?.name || one.model;
}

/** A model by its id or one of its aliases. One engine has any name. */
export function modelNamed(status: AnyStatus | undefined, name: string): Station | undefined {
  const all = stations(status);
  if (!isFleet(status)) return all[0];
  return all.find((one) => one.model === name) ?? all.find((one) => one.full?.aliases.includes(name));
}

/** The address of a model's page. */
export function pageOf(model: string): string {
  return `#/models/${segment(model)}`;
}
