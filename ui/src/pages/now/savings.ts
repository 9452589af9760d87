/* How much of the prompts came from the cache. */
import type { TokenStatistics } from "../../lib/api/types";
import { counted, duration } from "../../lib/format";
import type { Part } from "../../lib/ui/Meter.svelte";

/** The share of prompt tokens that came from the cache; null if there were none. */
export function shareOf(tokens: TokenStatistics): number | null {
  const prompt = tokens.cached + tokens.evaluated;
  return prompt ? tokens.cached / prompt : null;
}

/** Why there is no share. */
export function untold(tokens: TokenStatistics): string {
  return tokens.generated ? "the engine does not tell" : "no prompt was read yet";
}

export function partsOf(tokens: TokenStatistics): Part[] {
  return [
    { label: "From the cache", value: tokens.cached, colour: "--cached", text: counted(tokens.cached, "token") },
    { label: "Evaluated", value: tokens.evaluated, colour: "--evaluated", text: counted(tokens.evaluated, "token") },
  ];
}

/** The seconds that were not spent reading, in words; a dash if the cache helped and nobody knows how much. */
export function sparedOf(tokens: TokenStatistics): string {
  return tokens.cached > 0 && tokens.spared === 0 ? "–" : duration(tokens.spared);
}
