/* What is different in the program's state, put into what is known of it. Values are replaced, never changed in place:
 * what did not change stays the same object, so only what reads the rest is drawn anew. */

export type Path = readonly (string | number)[];
export type Change = readonly [Path, unknown];

/** The state with all changes made. */
export function changed<T>(state: T, changes: readonly Change[]): T {
  return changes.reduce<unknown>((value, [path, next]) => at(value, path, 0, next), state) as T;
}

function at(value: unknown, path: Path, depth: number, next: unknown): unknown {
  const step = path[depth];
  if (step === undefined) return next;
  if (Array.isArray(value)) {
    const copy: unknown[] = value.slice();
    copy[Number(step)] = at(copy[Number(step)], path, depth + 1, next);
    return copy;
  }
  const known = (value ?? {}) as Record<string, unknown>;
  return { ...known, [step]: at(known[step], path, depth + 1, next) };
}
