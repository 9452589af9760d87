import { describe, expect, it } from "vitest";
import type { Hardware, InflightRequest, Performance, RequestRecord } from "../../lib/api/types";
import { asText } from "./report";
import { machineCharts, queueChart, since, tokenChart } from "./series";

const at = (second: number) => new Date(second * 1000).toISOString();
const PERFORMANCE = {
  enabled: true,
  sys_stats: [
    {
      timestamp: at(10),
      cpu_util_per_core: [1, 2],
      mem_used_mb: 2000,
      net_io: [{ name: "lo", bytes_recv: 0, bytes_sent: 0 }],
    },
    {
      timestamp: at(15),
      cpu_util_per_core: [3, 4],
      mem_used_mb: 3000,
      net_io: [{ name: "lo", bytes_recv: 5e6, bytes_sent: 0 }],
    },
  ],
  gpu_stats: [
    { timestamp: at(10), id: 0, name: "A", gpu_util_pct: 50, mem_used_mb: null },
    { timestamp: at(10), id: 1, name: "B", gpu_util_pct: 70, mem_used_mb: null },
    { timestamp: at(15), id: 0, name: "A", gpu_util_pct: 0, mem_used_mb: null },
  ],
} as unknown as Performance;

describe("machineCharts", () => {
  const charts = new Map(machineCharts(PERFORMANCE).map((chart) => [chart.title, chart]));

  it("leaves out what nothing is known of", () =>
    expect([...charts.keys()]).toEqual(["CPU", "Memory", "Network", "GPU"]));
  it("has a line for each core", () =>
    expect(charts.get("CPU")?.lines[1]).toEqual({ label: "core 1", values: [2, 4] }));
  it("makes megabits per second of bytes that were counted", () =>
    expect(charts.get("Network")?.lines[0]).toEqual({ label: "lo in", values: [null, 8] }));
  it("has a line for each card; an idle one is at zero", () =>
    expect(charts.get("GPU")?.lines.map((line) => line.values)).toEqual([
      [50, 0],
      [70, null],
    ]));
  it("begins where the window does", () => {
    const cpu = charts.get("CPU");
    expect(cpu && since(cpu, 12)).toMatchObject({ times: [15], lines: [{ values: [3] }, { values: [4] }] });
    expect(cpu && since(cpu, 99).times).toEqual([]);
  });
});

describe("queueChart", () => {
  const ended = { started: 100, total: 15, queue: 2, swap: 3 } as RequestRecord;
  const runs = { timestamp: at(115), standing: { place: 0 } } as unknown as InflightRequest;
  const waits = { timestamp: at(110), standing: { place: 1 } } as unknown as InflightRequest;
  const values = (known: number) =>
    queueChart([ended], [runs, waits], { from: 95, to: 120, known }).lines.map((line) => line.values);

  it("tells who ran and who waited, also before anybody looked", () =>
    expect(values(0)).toEqual([
      [0, 0, 1, 1, 1],
      [0, 1, 0, 1, 1],
    ]));
  it("says nothing of a time of which nothing is known", () => expect(values(107)[0]).toEqual([null, null, 1, 1, 1]));
});

describe("tokenChart", () => {
  const one = { started: 100, total: 20, prefill: 10, decode: 10, tokens_evaluated: 1000, tokens_generated: 50 };

  it("spreads tokens over the seconds in which they were read or written", () => {
    const chart = tokenChart([one as RequestRecord], { from: 100, to: 120, known: 0 });
    expect(chart.lines.map((line) => line.values)).toEqual([
      [100, 100, 0, 0],
      [0, 0, 5, 5],
    ]);
  });

  it("counts all tokens once, whenever the request began", () => {
    const chart = tokenChart([{ ...one, started: 101.7 } as RequestRecord], { from: 100, to: 140, known: 0 });
    const sums = chart.lines.map((line) => line.values.reduce<number>((sum, value) => sum + (value ?? 0) * 5, 0));
    expect(sums.map(Math.round)).toEqual([1000, 50]);
  });

  it("leaves out what lies before the window", () => {
    const chart = tokenChart([{ ...one, started: 10 } as RequestRecord], { from: 100, to: 120, known: 0 });
    expect(chart.lines[0]?.values).toEqual([0, 0, 0, 0]);
  });
});

it("the text for a bug report says what is known and leaves out the rest", () => {
  const hardware = {
    captured_at: at(10),
    architecture: { name: "x86_64", raw_name: null },
    operating_system: { family: "linux", name: "Debian", version: "12", kernel: null },
    environment: { kind: "virtual_machine", name: null, version: null },
    cpu: { vendor: "AMD", model: "EPYC", socket_count: 1, physical_core_count: 2, logical_thread_count: 4 },
    memory: { capacity_bytes: 2 ** 34 },
    accelerators: [],
  } as unknown as Hardware;
  const text = asText(hardware, "1.2");
  expect(text).toContain("bioproxy 1.2");
  expect(text).toContain("Memory:            16.0 GiB");
  expect(text).toContain("2 cores, 4 threads");
  expect(text).not.toContain("Kernel");
});
