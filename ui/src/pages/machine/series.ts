/* Samples of the machine as lines to plot: times in unix seconds, one list of values for each line, null where nothing is
 * known. All of a chart have one unit. */
import type { GpuSample, InflightRequest, Performance, RequestRecord, SystemSample } from "../../lib/api/types";

export interface Line {
  label: string;
  values: (number | null)[];
}

export interface Chart {
  title: string;
  unit: string;
  times: number[];
  lines: Line[];
  most?: number; // the axis ends there, as a share does at 100
}

const MEGA = 1e6;
const BUCKET = 5; // seconds
const LEAST_SECONDS = 0.001;

const seconds = (timestamp: string) => Date.parse(timestamp) / 1000;

/** All charts of the machine itself; one without a figure is left out. */
export function machineCharts(performance: Performance): Chart[] {
  const charts = [...systemCharts(performance.sys_stats), ...gpuCharts(performance.gpu_stats)];
  return charts.filter((chart) => chart.lines.some((line) => line.values.some((value) => value !== null)));
}

function systemCharts(samples: readonly SystemSample[]): Chart[] {
  const times = samples.map((sample) => seconds(sample.timestamp));
  const of = (label: string, value: (sample: SystemSample) => number | undefined): Line => ({
    label,
    values: samples.map((sample) => value(sample) ?? null),
  });
  const cores = Math.max(0, ...samples.map((sample) => sample.cpu_util_per_core?.length ?? 0));
  const perCore = Array.from({ length: cores }, (_, core) =>
    of(`core ${core}`, (one) => one.cpu_util_per_core?.[core]),
  );
  return [
    { title: "CPU", unit: "%", times, lines: perCore, most: 100 },
    {
      title: "Memory",
      unit: "GB",
      times,
      lines: [
        of("used", (one) => gigabytes(one.mem_used_mb)),
        of("total", (one) => gigabytes(one.mem_total_mb)),
        of("swap used", (one) => gigabytes(one.swap_used_mb)),
      ],
    },
    {
      title: "Load average",
      unit: "",
      times,
      lines: [
        of("1 min", (one) => one.load_avg_1),
        of("5 min", (one) => one.load_avg_5),
        of("15 min", (one) => one.load_avg_15),
      ],
    },
    { title: "Network", unit: "Mbit/s", times, lines: networkLines(samples, times) },
  ];
}

function gigabytes(megabytes: number | undefined): number | undefined {
  return megabytes === undefined ? undefined : megabytes / 1000;
}

/** What came in and went out of each interface that carried anything, from counters that only grow. */
function networkLines(samples: readonly SystemSample[], times: readonly number[]): Line[] {
  const names = [...new Set(samples.flatMap((sample) => sample.net_io?.map((one) => one.name) ?? []))];
  return names.flatMap((name) => {
    const counters = samples.map((sample) => sample.net_io?.find((one) => one.name === name));
    const rates = (count: (one: { bytes_recv: number; bytes_sent: number }) => number) =>
      counters.map((now, at) => {
        const before = counters[at - 1];
        const passed = (times[at] ?? 0) - (times[at - 1] ?? 0);
        return now && before && passed > 0 ? (Math.max(0, count(now) - count(before)) * 8) / MEGA / passed : null;
      });
    const lines = [
      { label: `${name} in`, values: rates((one) => one.bytes_recv) },
      { label: `${name} out`, values: rates((one) => one.bytes_sent) },
    ];
    return lines.some((line) => line.values.some((value) => value !== null && value > 0)) ? lines : [];
  });
}

function gpuCharts(samples: readonly GpuSample[]): Chart[] {
  const times = [...new Set(samples.map((sample) => seconds(sample.timestamp)))].sort((one, other) => one - other);
  const cards = [...new Map(samples.map((sample) => [sample.id, sample.name])).entries()];
  // What a driver does not tell comes as 0. A share that was told once is 0 on an idle card; nothing is 0 °C or 0 W.
  const chart = (title: string, unit: string, value: (sample: GpuSample) => number | null, most?: number): Chart => ({
    title,
    unit,
    times,
    most,
    lines: cards.map(([id, name]) => {
      const known = new Map(samples.filter((one) => one.id === id).map((one) => [seconds(one.timestamp), value(one)]));
      const zero = most !== undefined && [...known.values()].some(Boolean) ? 0 : null;
      return {
        label: `${id} ${name}`,
        values: times.map((time) => (known.has(time) ? known.get(time) || zero : null)),
      };
    }),
  });
  return [
    chart("GPU", "%", (one) => one.gpu_util_pct, 100),
    chart("GPU memory", "GB", (one) => (one.mem_used_mb === null ? null : one.mem_used_mb / 1000)),
    chart("GPU temperature", "°C", (one) => one.temp_c),
    chart("GPU memory temperature", "°C", (one) => one.vram_temp_c),
    chart("GPU power", "W", (one) => one.power_draw_w),
  ];
}

/** A part of time, of which what was before `known` is not known. */
export interface Span {
  from: number;
  to: number;
  known: number;
}

function emptyBuckets({ from, to }: Span): number[] {
  return new Array<number>(Math.max(1, Math.ceil((to - from) / BUCKET))).fill(0);
}

function chartOf(title: string, unit: string, { from, known }: Span, lines: Record<string, number[]>): Chart {
  const [first = []] = Object.values(lines);
  const after = (values: number[]) =>
    values.map((value, bucket) => (from + (bucket + 1) * BUCKET > known ? value : null));
  return {
    title,
    unit,
    times: first.map((_, bucket) => from + (bucket + 0.5) * BUCKET),
    lines: Object.entries(lines).map(([label, values]) => ({ label, values: after(values) })),
  };
}

/** How many requests ran and waited over time, from those that ended and those that are under way. */
export function queueChart(
  requests: readonly RequestRecord[],
  inflight: readonly InflightRequest[],
  span: Span,
): Chart {
  const { from, to } = span;
  const running = emptyBuckets(span);
  const waiting = emptyBuckets(span);
  const during = (buckets: number[], begin: number, end: number) => {
    if (end > begin) spread(buckets, end - begin, begin - from, end - from);
  };
  for (const { started, total, queue, swap } of requests) {
    const began = started + Math.min(total, queue + swap);
    during(waiting, started, began);
    during(running, began, started + total);
  }
  for (const { timestamp, standing } of inflight) during(standing.place ? waiting : running, seconds(timestamp), to);
  return chartOf("Requests", "mean of 5 s", span, { running, waiting });
}

/** Tokens per second over time: each request's tokens are spread over the seconds in which they were read or written. */
export function tokenChart(requests: readonly RequestRecord[], span: Span): Chart {
  const { from } = span;
  const read = emptyBuckets(span);
  const written = emptyBuckets(span);
  for (const one of requests) {
    const decoded = one.started + one.total;
    const prefilled = decoded - (one.decode ?? 0);
    spread(read, one.tokens_evaluated ?? 0, prefilled - (one.prefill ?? 0) - from, prefilled - from);
    spread(written, one.tokens_generated ?? 0, prefilled - from, decoded - from);
  }
  return chartOf("Tokens per second", "", span, { evaluated: read, generated: written });
}

function spread(buckets: number[], tokens: number, begin: number, end: number): void {
  const length = Math.max(end - begin, LEAST_SECONDS);
  const last = Math.min(buckets.length - 1, Math.floor((begin + length) / BUCKET));
  for (let bucket = Math.max(0, Math.floor(begin / BUCKET)); bucket <= last; bucket += 1) {
    const shared = Math.min(begin + length, (bucket + 1) * BUCKET) - Math.max(begin, bucket * BUCKET);
    buckets[bucket] = (buckets[bucket] ?? 0) + (tokens * shared) / length / BUCKET;
  }
}

/** The window of a chart: only what is newer than `from`. */
export function since(chart: Chart, from: number): Chart {
  const first = chart.times.findIndex((time) => time >= from);
  if (first <= 0)
    return first < 0 ? { ...chart, times: [], lines: chart.lines.map((one) => ({ ...one, values: [] })) } : chart;
  const lines = chart.lines.map((line) => ({ ...line, values: line.values.slice(first) }));
  return { ...chart, times: chart.times.slice(first), lines };
}
