/* What may be written at a place of a configuration, by its JSON Schema: keys where a key stands, values after one. */

export interface Schema {
  $ref?: string;
  $defs?: Record<string, Schema>;
  description?: string;
  default?: unknown;
  type?: string | string[];
  properties?: Record<string, Schema>;
  additionalProperties?: Schema | boolean;
  items?: Schema;
  anyOf?: Schema[];
  enum?: unknown[];
  const?: unknown;
}

export interface Choice {
  label: string;
  detail: string; // its default, or nothing
  info: string;
}

const KEY = /^(\s*(?:- +)*)("?)([^\s"':#][^"':]*)\2\s*:(?=\s|$)/;

/** The keys above a line of YAML, from the outermost on; `indent` is that of the line itself. */
export function pathAt(lines: readonly string[], line: number, indent: number): string[] {
  const path: string[] = [];
  let limit = indent;
  for (let at = line - 1; at >= 0 && limit > 0; at -= 1) {
    const found = KEY.exec(lines[at] ?? "");
    const depth = found?.[1]?.length ?? Infinity;
    if (!found || depth >= limit) continue;
    path.unshift((found[3] ?? "").trim());
    limit = found[1]?.indexOf("-") === -1 ? depth : (found[1]?.indexOf("-") ?? depth);
  }
  return path;
}

/** The schema of what stands at a path; undefined if the schema says nothing of it. */
export function schemaAt(root: Schema, path: readonly string[]): Schema | undefined {
  return path.reduce<Schema | undefined>((schema, step) => inside(root, schema, step), root);
}

function inside(root: Schema, schema: Schema | undefined, step: string): Schema | undefined {
  for (const one of forms(root, schema)) {
    const found =
      one.properties?.[step] ??
      (typeof one.additionalProperties === "object"
        ? one.additionalProperties
        : one.items && inside(root, one.items, step));
    if (found) return found;
  }
  return undefined;
}

/** All forms that a value may have, references followed. */
function forms(root: Schema, schema: Schema | undefined, depth = 0): Schema[] {
  if (!schema || depth > 8) return [];
  const named = schema.$ref ? root.$defs?.[schema.$ref.replace("#/$defs/", "")] : undefined;
  return [
    schema,
    ...forms(root, named, depth + 1),
    ...(schema.anyOf ?? []).flatMap((one) => forms(root, one, depth + 1)),
  ];
}

/** The keys that may stand below a path. */
export function keysAt(root: Schema, path: readonly string[]): Choice[] {
  const found = new Map<string, Choice>();
  for (const form of forms(root, schemaAt(root, path)).flatMap((one) => [one, ...forms(root, one.items)])) {
    for (const [label, schema] of Object.entries(form.properties ?? {})) {
      const said = forms(root, schema).find((one) => one.description)?.description ?? "";
      if (!found.has(label)) found.set(label, { label, detail: shown(schema.default), info: said });
    }
  }
  return [...found.values()];
}

/** The values that a key at a path takes, if there are few: words, and yes or no. */
export function valuesAt(root: Schema, path: readonly string[]): string[] {
  const words = forms(root, schemaAt(root, path)).flatMap((one) => {
    if (one.enum) return one.enum.filter((word) => word !== null).map(String);
    return [one.type].flat().includes("boolean") ? ["true", "false"] : [];
  });
  return [...new Set(words)];
}

function shown(value: unknown): string {
  return value === undefined || typeof value === "object" ? "" : JSON.stringify(value);
}
