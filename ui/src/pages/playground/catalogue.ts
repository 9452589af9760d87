/* The names that a model can be asked by, in the groups in which a person looks for one. */
import type { ListedModel } from "../../lib/api/types";

export type Capability =
  "vision" | "image_generation" | "image_to_image" | "audio_speech" | "audio_transcriptions" | "reranker";

export interface Choice {
  id: string;
  label: string; // what it is called beside its id; "" if nothing
  under: string; // the model whose other name this is; "" if it is its own
  loaded: boolean;
}

export interface Group {
  label: string;
  choices: Choice[];
}

interface Described {
  type?: string;
  aliases?: string[];
  modelID?: string;
}

/** What may be an engine's own list: it may be none, and have a name twice. */
export function listed(data: unknown): ListedModel[] {
  const all = Array.isArray(data) ? (data as (ListedModel | null)[]) : [];
  const named = all.flatMap((model) => (typeof model?.id === "string" && model.id ? [model] : []));
  return [...new Map(named.map((model) => [model.id, model])).values()];
}

function described(model: ListedModel): Described {
  return (model.meta?.llamaswap ?? {}) as Described;
}

function choice(model: ListedModel, under = ""): Choice {
  return { id: model.id, label: model.name ?? "", under, loaded: model.status?.value === "loaded" };
}

/** Names of the profile first, then what can do what is wanted, selectors, the others of this machine, and peers'. */
export function groups(models: readonly ListedModel[], wanted: readonly Capability[] = []): Group[] {
  const of = (type: string) => models.filter((model) => (described(model).type ?? "model") === type);
  const fits = (model: ListedModel) => wanted.some((name) => model.capabilities?.[name]);
  const local = of("model").map((model) => ({ model, names: withOtherNames(model, models) }));
  const found: Group[] = [
    { label: "Profile", choices: of("profile").map((model) => choice(model)) },
    { label: "Fitting", choices: local.filter(({ model }) => fits(model)).flatMap(({ names }) => names) },
    { label: "Selectors", choices: of("selector").map((model) => choice(model)) },
    { label: "Local", choices: local.filter(({ model }) => !fits(model)).flatMap(({ names }) => names) },
    { label: "Peers", choices: of("peer").map((model) => choice(model)) },
  ];
  return found.filter((group) => group.choices.length);
}

/** A model, its aliases (which the list has only if the configuration says so), and its names with a template. */
function withOtherNames(model: ListedModel, models: readonly ListedModel[]): Choice[] {
  const listed = models.filter((other) => described(other).modelID === model.id);
  const known = new Set(listed.map((other) => other.id));
  const own = choice(model);
  const hidden = (described(model).aliases ?? []).filter((alias) => !known.has(alias));
  return [
    own,
    ...hidden.map((alias) => ({ ...own, id: alias, label: "", under: model.id })),
    ...listed.map((other) => choice(other, model.id)),
  ];
}

/** The groups with only what has all words of `query` in its names. */
export function filtered(all: readonly Group[], query: string): Group[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const has = ({ id, label, under }: Choice) => {
    const text = `${id} ${label} ${under}`.toLowerCase();
    return words.every((word) => text.includes(word));
  };
  return all
    .map((group) => ({ ...group, choices: group.choices.filter(has) }))
    .filter((group) => group.choices.length > 0);
}

/** The model to begin with: a fitting one, a loaded one, else the first. */
export function first(all: readonly Group[]): string {
  const choices = all.flatMap((group) => group.choices);
  const fitting = all.find((group) => group.label === "Fitting")?.choices[0];
  return (fitting ?? choices.find((one) => one.loaded) ?? choices[0])?.id ?? "";
}

/** Whether the name leads to another server, which may refuse fields that only llama-server knows. */
export function isPeer(models: readonly ListedModel[], id: string): boolean {
  return models.some((model) => model.id === id && described(model).type === "peer");
}

/** The model that a name of this machine means: an alias's, or that of a name with a template. */
export function owner(models: readonly ListedModel[], id: string): string {
  const own = models.find((model) => model.id === id);
  const aliased = models.find((model) => described(model).aliases?.includes(id));
  return (own && described(own).modelID) || own?.id || aliased?.id || id;
}
