/* The templates that a model has, and whether each is warm: a question that begins with a warm one is answered at once. */
import type { AnyStatus } from "../../../lib/api/types";
import { stations, templates, type Station } from "../../../lib/machine";

export interface Offer {
  prefix: string;
  state: string; // "" if nothing is known, as of a model that does not run
}

/** The model's, or the only engine's, whatever it is called. */
export function stationOf(status: AnyStatus | undefined, model: string): Station | undefined {
  const all = stations(status);
  return all.find((one) => one.model === model) ?? (status?.serves === "engine" ? all[0] : undefined);
}

export function offers(status: AnyStatus | undefined, model: string): Offer[] {
  const station = stationOf(status, model);
  const prefixes = templates(status)
    .filter((one) => one.model === "" || one.model === station?.model)
    .map((one) => one.prefix);
  return [...new Set(prefixes)].map((prefix) => {
    const targets = station?.warmup.targets.filter((one) => one.prefix === prefix) ?? [];
    const target = targets.find((one) => one.head === "bare") ?? targets[0]; // bare: without a system prompt
    return { prefix, state: target?.text || target?.state || "" };
  });
}

/** The text with another template before it, or another one than before. */
export function withTemplate(text: string, prefix: string, known: readonly Offer[]): string {
  const before = known.find((one) => text === one.prefix || text.startsWith(`${one.prefix} `));
  const rest = before ? text.slice(before.prefix.length).trimStart() : text;
  return `${prefix} ${rest}`;
}
