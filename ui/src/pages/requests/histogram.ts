/* How fast requests were: sums and distributions of records, as `api/metrics/stats` makes them of its table, and where the
 * bars and lines of a distribution stand in a picture. */
import type { ActivityStats, Histogram } from "../../lib/api/types";
import { counted, rate } from "../../lib/format";
import type { Entry } from "./entry";

const FEWEST = 5;
const MOST = 20;

export function statsOf(entries: readonly Entry[]): ActivityStats {
  const sum = (of: (one: Entry) => number | null) => entries.reduce((total, one) => total + (of(one) ?? 0), 0);
  return {
    total_requests: entries.length,
    total_input_tokens: sum((one) => one.prompt),
    total_output_tokens: sum((one) => one.generated),
    total_cache_tokens: sum((one) => one.cached),
    prompt_histogram: histogram(entries.map((one) => one.prefillSpeed)),
    gen_histogram: histogram(entries.map((one) => one.decodeSpeed)),
  };
}

/** The distribution of what is known; null if nothing is. */
export function histogram(speeds: readonly (number | null)[]): Histogram | null {
  const values = speeds.filter((value) => value !== null).sort((one, other) => one - other);
  const [min, max] = [values[0], values[values.length - 1]];
  if (min === undefined || max === undefined) return null;
  const number = min === max ? 1 : Math.min(MOST, Math.max(FEWEST, Math.ceil(Math.log2(values.length)) + 1));
  const binSize = (max - min) / number;
  const bins = new Array<number>(number).fill(0);
  for (const value of values) {
    const bin = binSize ? Math.min(Math.floor((value - min) / binSize), number - 1) : 0;
    bins[bin] = (bins[bin] ?? 0) + 1;
  }
  const at = (share: number) => percentile(values, share);
  return { bins, min, max, binSize, p50: at(0.5), p95: at(0.95), p99: at(0.99) };
}

function percentile(values: readonly number[], share: number): number {
  const rank = share * (values.length - 1);
  const lower = values[Math.floor(rank)] ?? 0;
  const upper = values[Math.ceil(rank)] ?? lower;
  return lower + (rank - Math.floor(rank)) * (upper - lower);
}

export interface Bar {
  x: number;
  y: number;
  width: number;
  height: number;
  title: string;
}

export interface Line {
  x: number;
  label: string;
  value: string;
}

/** Bars and lines in a picture that is `width` by `height`. */
export function drawn(of: Histogram, width: number, height: number): { bars: Bar[]; lines: Line[] } {
  const most = Math.max(...of.bins, 1);
  const step = width / of.bins.length;
  const bars = of.bins.map((count, place) => {
    const tall = (count / most) * height;
    const from = of.min + place * of.binSize;
    const range = of.binSize ? `${rate(from)} to ${rate(from + of.binSize)}` : rate(of.min);
    return {
      x: place * step + 0.5,
      y: height - tall,
      width: Math.max(1, step - 1),
      height: tall,
      title: `${range} tokens/s: ${counted(count, "request")}`,
    };
  });
  const lines = (["p50", "p95", "p99"] as const).map((label) => ({
    x: of.max > of.min ? ((of[label] - of.min) / (of.max - of.min)) * width : width / 2,
    label,
    value: rate(of[label]),
  }));
  return { bars, lines };
}
