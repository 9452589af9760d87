/* All that is known of one request, in groups, as it reads. What says nothing is left out. */
import type { RequestRecord } from "../../lib/api/types";
import { absolute, bytes, counted, duration, NONE, percent, rate } from "../../lib/format";
import type { Entry } from "./entry";

export type Field = readonly [label: string, value: string];

export interface Group {
  title: string;
  fields: Field[];
}

export function groupsOf(entry: Entry): Group[] {
  const { record } = entry;
  return [
    { title: "What", fields: what(entry, record) },
    { title: "Time", fields: time(record) },
    { title: "Size", fields: size(entry, record) },
  ].map((group) => ({ ...group, fields: group.fields.filter(([, value]) => value && value !== NONE) }));
}

function what(entry: Entry, record: RequestRecord): Field[] {
  const path = record.req_path || record.path;
  return [
    ["Request id", record.id],
    ["Row", record.activity ? String(record.activity) : ""],
    ["Began", absolute(record.started)],
    ["Model", record.model],
    ["Client", record.client],
    ["Program", record.app],
    ["Session", record.session],
    ["Request", `${record.method} ${path}`],
    ["Endpoint", record.endpoint === path ? "" : record.endpoint],
    ["Class of work", record.side ? `${record.work}, by the rule ${record.side}` : record.work],
    ["Prompt changed by", record.mended.join(", ")],
    ["Prefix", record.prefix],
    ["Outcome", `${record.outcome.replace("_", " ")}, status ${record.status}`],
    ["Error", record.error],
    ["Stream", yes(record.stream)],
    ["Asked the engine", yes(record.gated)],
    ["Content type", entry.kind],
    ...Object.entries(record.metadata).filter(([name]) => name !== "session_id"),
  ];
}

function time(record: RequestRecord): Field[] {
  const waits = Object.entries(record.waits ?? {}).map(([name, seconds]): Field => [
    `  ${name || "model"}`,
    spent(seconds),
  ]);
  return [
    ["Whole", duration(record.total)],
    ["Swap", spent(record.swap)],
    ...waits,
    ["Queue", spent(record.queue)],
    ["Save", spent(record.save)],
    ["Restore", spent(record.restore)],
    ["First byte", duration(record.first_byte)],
    ["Prefill", duration(record.prefill)],
    ["Decode", duration(record.decode)],
  ];
}

function size(entry: Entry, record: RequestRecord): Field[] {
  const prompt = entry.cached !== null && entry.prompt !== null ? entry.cached + entry.prompt : null;
  return [
    ["Cache", record.cache],
    ["Prompt", tokens(prompt)],
    ["From the cache", tokens(entry.cached)],
    ["Evaluated", tokens(entry.prompt)],
    ["Generated", tokens(entry.generated)],
    ["Saved for others", record.kept ? tokens(record.kept) : ""],
    ["Drafted", tokens(entry.drafted)],
    ["Accepted", entry.drafted ? `${tokens(entry.accepted)} (${percent((entry.accepted ?? 0) / entry.drafted)})` : ""],
    ["Prefill speed", speed(entry.prefillSpeed)],
    ["Decode speed", speed(entry.decodeSpeed)],
    ["Received", bytes(record.bytes_in)],
    ["Sent", bytes(record.bytes_out)],
  ];
}

const yes = (value: boolean) => (value ? "yes" : "no");
const spent = (seconds: number) => (seconds > 0 ? duration(seconds) : "");
const tokens = (value: number | null) => (value === null ? "" : counted(value, "token"));
const speed = (value: number | null) => (value === null ? "" : `${rate(value)} tokens/s`);
