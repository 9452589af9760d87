import { describe, expect, it } from "vitest";
import type { RequestRecord } from "../../lib/api/types";
import { isShown, moved, NO_CHOICE, ordered, turned } from "../../lib/ui/columns";
import { COLUMNS } from "./columns";
import { entryOf } from "./entry";
import { filtersIn, fits, isSet, NEWEST, NO_FILTERS, pageNumbers, query, sortedBy } from "./filters";
import { drawn, histogram, statsOf } from "./histogram";
import { escaped, markdown } from "./markdown";
import { barsOf, ticks } from "./waterfall";

function told(more: Partial<RequestRecord> = {}): RequestRecord {
  return {
    ...({ id: "r", started: 100, method: "POST", path: "/v1/chat/completions", endpoint: "", client: "anna" } as const),
    ...({ work: "user", prefix: "", stream: false, gated: true, status: 200, outcome: "ok", queue: 0 } as const),
    ...({ restore: 0, save: 0, first_byte: 1, prefill: 2, decode: 4, total: 8, tokens_cached: 90 } as const),
    ...({ tokens_evaluated: 10, tokens_generated: 40, bytes_in: 1, bytes_out: 2, cache: "hit", why: "" } as const),
    ...({ finding: null, error: "", model: "m", metered: true, content_type: "", req_path: "", usage: null } as const),
    ...({
      swap: 0,
      waits: null,
      session: "",
      trace_id: "",
      activity: 0,
      metadata: {},
      app: "",
      side: "",
      kept: 0,
      mended: [],
    } as const),
    ...more,
  };
}

describe("an entry", () => {
  it("opens under its number, or under its id if it has none", () => {
    expect(entryOf(told({ activity: 7 })).key).toBe("7");
    expect(entryOf(told({ id: "x/y" })).key).toBe("x/y");
  });
  it("takes -1 for not known, and works out speeds that nobody said", () => {
    const usage = { input_tokens: -1, output_tokens: 3, cache_tokens: -1, draft_tokens: 10, draft_acc_tokens: 5 };
    const one = entryOf(
      told({
        tokens_cached: null,
        tokens_evaluated: null,
        tokens_generated: null,
        usage: { ...usage, prompt_per_second: 0, tokens_per_second: 8, seconds: null },
      }),
    );
    expect([one.cached, one.prompt, one.generated, one.prefillSpeed, one.decodeSpeed]).toEqual([
      null,
      null,
      3,
      null,
      8,
    ]);
    expect(COLUMNS.find((column) => column.id === "drafted")?.text(one, 0)).toBe("50 % (5/10)");
    expect(entryOf(told()).decodeSpeed).toBe(10);
  });
});

describe("columns", () => {
  const columns = [
    { id: "a", label: "A" },
    { id: "b", label: "B", hidden: true },
    { id: "c", label: "C" },
  ];
  it("can be moved and turned, and a new one stands at its own place", () => {
    const choice = moved(columns, NO_CHOICE, "c", "a");
    expect(choice.order).toEqual(["c", "a", "b"]);
    expect(moved(columns, choice, "c", -1)).toBe(choice);
    expect(moved(columns, choice, "c", 1).order).toEqual(["a", "c", "b"]);
    expect(ordered(columns, { order: ["c", "a", "gone"], shown: {} }).map((one) => one.id)).toEqual(["c", "b", "a"]);
    const turn = columns.map((column) => isShown(column, turned(columns[1] ?? column, NO_CHOICE)));
    expect(turn).toEqual([true, true, true]);
  });
});

describe("filters", () => {
  it("become the program's query", () => {
    const asked = query(
      { ...NO_FILTERS, from: "3", model: " a b ", status: "4xx" },
      { column: "prefill", down: false },
      2,
      50,
    );
    expect(asked).toBe("record=1&page=2&limit=50&min_id=3&model=a+b&status=4xx&sort=prompt_speed&order=asc");
    expect(isSet(NO_FILTERS)).toBe(false);
    expect(filtersIn("model=a%2Fb&page=3")).toEqual({ ...NO_FILTERS, model: "a/b" });
    expect([filtersIn(undefined), filtersIn(""), filtersIn("capture")]).toEqual([undefined, undefined, undefined]);
  });
  it("mean the same for records that the page holds", () => {
    const one = entryOf(told({ status: 404, outcome: "client_error", activity: 5 }));
    const wants = (more: object) => fits(one, { ...NO_FILTERS, ...more });
    expect([wants({}), wants({ status: "4xx" }), wants({ status: "404" }), wants({ path: "chat" })]).toEqual(
      Array(4).fill(true),
    );
    expect([wants({ status: "5xx" }), wants({ client: "bert" }), wants({ to: "4" }), wants({ cache: "miss" })]).toEqual(
      Array(4).fill(false),
    );
    expect(wants({ status: "((((" })).toBe(true);
  });
  it("turn a head that is chosen twice, and show pages around the present one", () => {
    expect(sortedBy(NEWEST, "id").down).toBe(false);
    expect(sortedBy(NEWEST, "queue")).toEqual({ column: "queue", down: true });
    expect(pageNumbers(9, 20)).toEqual([6, 7, 8, 9, 10, 11, 12]);
    expect(pageNumbers(20, 20)).toEqual([14, 15, 16, 17, 18, 19, 20]);
    expect(pageNumbers(1, 0)).toEqual([]);
  });
});

describe("statistics", () => {
  it("distribute as the program does", () => {
    expect(histogram([null])).toBeNull();
    expect(histogram([10, 10])).toEqual({ bins: [2], min: 10, max: 10, binSize: 0, p50: 10, p95: 10, p99: 10 });
    expect(histogram([1, 2, 3, 4, 11])?.bins).toEqual([2, 2, 0, 0, 1]);
    expect(statsOf([entryOf(told()), entryOf(told())]).total_cache_tokens).toBe(180);
  });
  it("draw bars that fit and lines within", () => {
    const found = histogram([1, 2, 3, 4, 11]);
    const { bars, lines } = drawn(found ?? (null as never), 100, 50);
    expect(bars[0]).toEqual({ x: 0.5, y: 0, width: 19, height: 50, title: "1.0 to 3.0 tokens/s: 2 requests" });
    expect(lines.map((line) => [line.label, line.x, line.value])[0]).toEqual(["p50", 20, "3.0"]);
    expect(lines.every((line) => line.x >= 0 && line.x <= 100)).toBe(true);
  });
});

describe("Markdown", () => {
  it("cannot be broken out of", () => {
    expect(escaped("a|b\n<script>`x`")).toBe("a\\|b \\<script\\>\\`x\\`");
    const columns = COLUMNS.filter((column) => ["model", "generated", "capture"].includes(column.id));
    expect(markdown(columns, [entryOf(told({ model: "a|b" }))], 0)).toBe(
      "| Model | Generated |\n| --- | ---: |\n| a\\|b | 40 |\n\n" +
        "1 request, 0 of them failed; 90 tokens from the cache, 10 processed, 40 generated.\n",
    );
  });
});

describe("the waterfall", () => {
  it("places parts on the whole, and marks round times", () => {
    const parts = [
      { name: "queue", at: 0, seconds: 2 },
      { name: "new part", at: 2, seconds: 6 },
    ];
    const [queue, other] = barsOf(parts, 8);
    expect([queue?.left, queue?.width, queue?.text, queue?.share]).toEqual([0, 25, "2.00 s", "25 %"]);
    expect([other?.left, other?.label]).toEqual([25, "new part"]);
    expect(ticks(8).map((tick) => tick.text)).toEqual(["0", "2.00 s", "4.00 s", "6.00 s"]);
    expect(ticks(0.0031).map((tick) => tick.text)).toEqual(["0", "1 ms", "2 ms"]);
    expect(ticks(0)).toEqual([]);
  });
});
