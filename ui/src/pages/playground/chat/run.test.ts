import { expect, it } from "vitest";
import type { RequestRecord } from "../../../lib/api/types";
import { explained } from "./run";
import { NO_FIGURES } from "./turns";

const USAGE = { prompt_per_second: 50, tokens_per_second: -1 };
const RECORD = { cache: "restored", why: "restored in 0.1 s", tokens_cached: 90, tokens_evaluated: 10, prefill: 2 };
const record = { ...RECORD, tokens_generated: 7, usage: USAGE } as unknown as RequestRecord;

it("completes what the stream did not tell with what the program knows", () =>
  expect(explained({ ...NO_FIGURES, evaluated: 12, parts: { queue: 1 } }, record)).toEqual({
    ...NO_FIGURES,
    cached: 90,
    evaluated: 12,
    generated: 7,
    readingRate: 50,
    writingRate: null,
    source: "disk",
    why: "restored in 0.1 s",
    parts: { queue: 1, prefill: 2 },
  }));

it("calls what was cached and not restored the engine's memory", () => {
  expect(explained(NO_FIGURES, { ...record, cache: "hit" }).source).toBe("memory");
  expect(explained(NO_FIGURES, { ...record, cache: "miss", tokens_cached: 0 }).source).toBe("");
});
