// The counts of the rules about clients as rows of one table.

import type { ClientsStatistics } from "../../lib/api/types";

export interface Row {
  rule: string;
  matched: number;
  done: readonly (readonly [number, string])[];
  waited: number | null; // seconds for each request; null: nothing waits by such a rule
  tokens: number;
}

/** A row for each rule that was for a request: side requests first. */
export function rowsOf(clients: ClientsStatistics): Row[] {
  const side = Object.entries(clients.side).map(([rule, one]) => ({
    rule,
    matched: one.matched,
    done: counts([one.refused, "refused"], [one.rerouted, "answered by another model"]),
    waited: one.matched > one.refused ? one.waited / (one.matched - one.refused) : null,
    tokens: one.kept + one.spared,
  }));
  const mended = Object.entries(clients.stabilize).map(([rule, one]) => ({
    rule,
    matched: one.matched,
    done: counts([one.changed, "changed"], [one.mended, "mended"]),
    waited: null,
    tokens: one.spared,
  }));
  return [...side, ...mended];
}

function counts(...found: readonly (readonly [number, string])[]) {
  return found.filter(([count]) => count > 0);
}
