/* Which values of the configuration are shown. */
import type { ConfigValue } from "../../lib/api/types";

/** Those that were set somewhere, or all; with what was typed in key, value or place. */
export function matching(
  values: readonly ConfigValue[],
  { typed, all }: { typed: string; all: boolean },
): ConfigValue[] {
  const word = typed.trim().toLowerCase();
  return values.filter(
    (one) =>
      (all || one.origin !== "default") &&
      [one.key, one.text, one.origin].some((text) => text.toLowerCase().includes(word)),
  );
}
