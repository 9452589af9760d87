import { afterEach, expect, it, vi } from "vitest";
import { rerank } from "./rerank.svelte";

afterEach(() => vi.unstubAllGlobals());

it("shows no scores of an earlier ranking below one that failed", async () => {
  const shown = () => [rerank.rows[0]?.score, rerank.tokens, rerank.job.result];
  const result = { results: [{ index: 0, relevance_score: 0.5 }], usage: { total_tokens: 9 } };
  vi.stubGlobal("fetch", () => Promise.resolve(Response.json(result)));
  await rerank.rank();
  expect(shown()).toEqual([0.5, 9, result]);
  vi.stubGlobal("fetch", () => Promise.resolve(Response.json({ error: "no" }, { status: 500 })));
  await rerank.rank();
  expect(rerank.job.error).toBe("no");
  expect(shown()).toEqual([null, null, undefined]);
});
