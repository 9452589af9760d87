/* How numbers and times read. The only place that formats: what is equal reads equal on every page.
 * Seconds and bytes come in as the program tells them; null and undefined are "not known" and read as a dash. */

export type Maybe<T> = T | null | undefined;

export const NONE = "–";
const MINUTE = 60;
const HOUR = 3600;
const DAY = 86400;

/** Seconds as people say them: "12 ms", "1.42 s", "14.2 s", "3 min 5 s", "2 h 4 min", "5 d 3 h". */
export function duration(seconds: Maybe<number>): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return NONE;
  if (seconds < 0) return `−${duration(-seconds)}`;
  if (seconds < 0.0005) return "0 ms";
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.995) return `${seconds.toFixed(2)} s`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < HOUR) return pair(whole, MINUTE, "min", 1, "s");
  if (whole < DAY) return pair(whole, HOUR, "h", MINUTE, "min");
  return pair(whole, DAY, "d", HOUR, "h");
}

function pair(whole: number, large: number, one: string, small: number, other: string): string {
  const rest = Math.floor((whole % large) / small);
  return `${Math.floor(whole / large)} ${one}${rest ? ` ${rest} ${other}` : ""}`;
}

/** Seconds that tick, in whole ones: "0 s", "42 s", "3 min 5 s", "2 h 4 min". */
export function ticking(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  return whole < MINUTE ? `${whole} s` : duration(whole);
}

/** Seconds where only their order counts: "12 s", "3 min", "2 h". */
export function about(seconds: Maybe<number>): string {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 1) return "1 s";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 90 * MINUTE) return `${Math.round(seconds / MINUTE)} min`;
  return seconds < 36 * HOUR ? `${Math.round(seconds / HOUR)} h` : `${Math.round(seconds / DAY)} d`;
}

/** Bytes in powers of ten, as disks are sold: "512 B", "3.2 kB", "1.42 GB". */
export function bytes(count: Maybe<number>): string {
  if (count === null || count === undefined) return NONE;
  return scaled(count, 1000, ["B", "kB", "MB", "GB", "TB", "PB"]);
}

/** Bytes in powers of two, as memory is: "14.2 GiB". */
export function memory(count: Maybe<number>): string {
  if (count === null || count === undefined) return NONE;
  return scaled(count, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]);
}

function scaled(count: number, step: number, units: readonly string[]): string {
  let value = count;
  let unit = 0;
  while (Math.abs(value) >= step * 0.9995 && unit < units.length - 1) {
    value /= step;
    unit += 1;
  }
  const digits = unit === 0 || Math.abs(value) >= 99.95 ? 0 : Math.abs(value) >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** A whole number with its thousands apart: "3,806". */
export function count(value: Maybe<number>): string {
  return value === null || value === undefined ? NONE : Math.round(value).toLocaleString("en-US");
}

/** A large number where only its size counts: "950", "12,400", "1.42 M", "3.1 G". */
export function compact(value: Maybe<number>): string {
  if (value === null || value === undefined) return NONE;
  if (Math.abs(value) < 99_950) return count(value);
  const [unit, step] = value < 999_500 ? ["k", 1e3] : value < 999.5e6 ? ["M", 1e6] : ["G", 1e9];
  const scaled = value / Number(step);
  return `${scaled.toFixed(scaled < 9.995 ? 2 : scaled < 99.95 ? 1 : 0)} ${unit}`;
}

/** A number with its noun: "1 token", "3,806 tokens". */
export function counted(value: number, noun: string, plural = `${noun}s`): string {
  return `${count(value)} ${value === 1 ? noun : plural}`;
}

/** Per second: "0.8", "42.1", "1,204". */
export function rate(value: Maybe<number>): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  return value >= 99.95 ? count(value) : value.toFixed(1);
}

/** A share of one: "0 %", "< 0.1 %", "0.4 %", "97 %". */
export function percent(share: Maybe<number>): string {
  if (share === null || share === undefined || !Number.isFinite(share)) return NONE;
  const value = share * 100;
  if (value > 0 && value < 0.05) return "< 0.1 %";
  return `${value > 0 && value < 0.95 ? value.toFixed(1) : Math.round(value)} %`;
}

/** The moment of a unix time; undefined without one, and for one that no calendar has. */
export function moment(time: Maybe<number>): Date | undefined {
  const at = new Date((time || NaN) * 1000);
  return Number.isNaN(at.getTime()) ? undefined : at;
}

/** How long ago a unix time is, or how far ahead: "just now", "12 s ago", "in 3 min"; after a day the date. */
export function relative(time: Maybe<number>, now: number): string {
  if (!time || !moment(time)) return NONE;
  const seconds = now - time;
  if (Math.abs(seconds) >= DAY) return absolute(time);
  if (Math.abs(seconds) < 2) return "just now"; // the clock that ticks may be a second behind
  return seconds < 0 ? `in ${about(-seconds)}` : `${about(seconds)} ago`;
}

/** Whether a unix time lies in the day of another, by UTC, as the program counts days. */
export function sameDay(time: number, other: number): boolean {
  return Math.floor(time / DAY) === Math.floor(other / DAY);
}

/** A unix time in the reader's own zone: "2026-11-28 14:05:09". */
export function absolute(time: Maybe<number>): string {
  const at = moment(time);
  if (!at) return NONE;
  const two = (part: number) => String(part).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** A long text with its middle left out, because its ends tell it from others. */
export function middle(text: string, most: number): string {
  if (text.length <= most) return text;
  const kept = most - 1;
  return `${text.slice(0, Math.ceil(kept / 2))}…${text.slice(text.length - Math.floor(kept / 2))}`;
}
