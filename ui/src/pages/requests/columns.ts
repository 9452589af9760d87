/* The columns of the table: what each is called, whether it is shown at first, and what it says. */
import { absolute, count, duration, NONE, percent, rate, relative } from "../../lib/format";
import { sentence } from "../../lib/said";
import type { Kind } from "../../lib/ui/state";
import type { Entry } from "./entry";

export interface Column {
  id: string;
  label: string;
  about?: string;
  hidden?: boolean; // until somebody chooses it
  number?: boolean;
  /** What the program calls it when it sorts; without it nobody can sort by it. */
  sort?: string;
  value: (entry: Entry) => string | number | null;
  text: (entry: Entry, now: number) => string;
}

/** A colour and a shape for what became of a request, and of its cache. */
export const OUTCOME_KINDS: Readonly<Record<Entry["record"]["outcome"], Kind>> = {
  ok: "good",
  client_left: "off",
  rejected: "busy",
  timeout: "busy",
  client_error: "bad",
  engine_error: "bad",
  error: "bad",
};
export const CACHE_KINDS: Readonly<Record<Entry["record"]["cache"], Kind>> = {
  hit: "good",
  restored: "busy",
  miss: "off",
  "": "off",
};

const words = (value: string) => value || NONE;

export const COLUMNS: readonly Column[] = [
  { id: "id", label: "ID", sort: "id", value: (one) => Number(one.key) || one.at, text: (one) => one.key },
  {
    id: "time",
    label: "Time",
    about: "when it ended",
    sort: "time",
    value: (one) => one.at,
    text: (one, now) => relative(one.at, now),
  },
  {
    id: "model",
    label: "Model",
    sort: "model",
    value: (one) => one.record.model,
    text: (one) => words(one.record.model),
  },
  {
    id: "client",
    label: "Client",
    about: "who asked: the name of its key, or its address",
    sort: "client",
    value: (one) => one.record.client,
    text: (one) => words(one.record.client),
  },
  {
    id: "app",
    label: "Program",
    about: "the program that sent it, if it is known",
    hidden: true,
    value: (one) => one.record.app,
    text: (one) => words(one.record.app),
  },
  { id: "path", label: "Path", hidden: true, sort: "req_path", value: pathOf, text: pathOf },
  {
    id: "status",
    label: "Status",
    number: true,
    sort: "resp_status_code",
    value: (one) => one.record.status,
    text: (one) => String(one.record.status),
  },
  {
    id: "kind",
    label: "Content type",
    hidden: true,
    sort: "resp_content_type",
    value: (one) => one.kind,
    text: (one) => words(one.kind),
  },
  {
    id: "work",
    label: "Work",
    about: "its class in the queue: user, side or background",
    hidden: true,
    sort: "work",
    value: (one) => one.record.work,
    text: (one) => one.record.work,
  },
  {
    id: "cache",
    label: "Cache",
    about: "hit: the prompt's beginning was in memory; restored: it came from disk; miss: it was read again",
    sort: "cache",
    value: (one) => one.record.cache,
    text: (one) => words(one.record.cache),
  },
  {
    id: "prefix",
    label: "Prefix",
    about: "the template that was filled in",
    hidden: true,
    sort: "prefix",
    value: (one) => one.record.prefix,
    text: (one) => words(one.record.prefix),
  },
  {
    id: "cached",
    label: "Cached",
    about: "prompt tokens that came from the cache",
    number: true,
    sort: "cached",
    value: (one) => one.cached,
    text: (one) => count(one.cached),
  },
  {
    id: "prompt",
    label: "Prompt",
    about: "new prompt tokens that were processed",
    number: true,
    sort: "prompt",
    value: (one) => one.prompt,
    text: (one) => count(one.prompt),
  },
  {
    id: "generated",
    label: "Generated",
    number: true,
    sort: "generated",
    value: (one) => one.generated,
    text: (one) => count(one.generated),
  },
  {
    id: "drafted",
    label: "Drafted",
    about: "tokens that a draft model proposed: the share that was accepted (accepted/drafted)",
    hidden: true,
    number: true,
    sort: "drafted",
    value: (one) => one.drafted,
    text: drafted,
  },
  {
    id: "prefill",
    label: "Prefill t/s",
    number: true,
    sort: "prompt_speed",
    value: (one) => one.prefillSpeed,
    text: (one) => rate(one.prefillSpeed),
  },
  {
    id: "decode",
    label: "Decode t/s",
    number: true,
    sort: "gen_speed",
    value: (one) => one.decodeSpeed,
    text: (one) => rate(one.decodeSpeed),
  },
  {
    id: "queue",
    label: "Queue",
    about: "waited for its turn",
    number: true,
    sort: "queue",
    value: (one) => one.record.queue,
    text: (one) => waited(one.record.queue),
  },
  {
    id: "swap",
    label: "Swap",
    about: "waited for its model",
    number: true,
    sort: "swap",
    value: (one) => one.record.swap,
    text: (one) => waited(one.record.swap),
  },
  {
    id: "duration",
    label: "Duration",
    number: true,
    sort: "duration",
    value: (one) => one.seconds,
    text: (one) => duration(one.seconds),
  },
  { id: "capture", label: "Capture", value: (one) => Number(one.capture), text: (one) => (one.capture ? "yes" : NONE) },
  {
    id: "why",
    label: "Why",
    about: "why it took as long as it did",
    value: (one) => one.record.why,
    text: (one) => sentence(one.record.why) || NONE,
  },
  { id: "meta", label: "Meta", hidden: true, value: () => null, text: (one) => words(meta(one)) },
  {
    id: "source",
    label: "Source",
    about: "the session that its client names",
    hidden: true,
    value: (one) => one.record.session,
    text: (one) => words(one.record.session),
  },
];

/** What a pointer that rests on a cell reads. */
export function hint(column: Column, entry: Entry): string | undefined {
  switch (column.id) {
    case "time":
      return absolute(entry.at);
    case "status":
      return entry.record.error || undefined;
    case "meta":
      return meta(entry, "\n") || undefined;
    case "path":
    case "why":
    case "model":
    case "client":
    case "source":
      return column.text(entry, 0);
  }
}

export function meta(entry: Entry, between = ", "): string {
  return Object.entries(entry.record.metadata)
    .map(([name, value]) => `${name}=${value}`)
    .join(between);
}

function pathOf(one: Entry): string {
  return one.record.req_path || one.record.path;
}

function drafted({ drafted, accepted }: Entry): string {
  return drafted === null ? NONE : `${percent((accepted ?? 0) / drafted)} (${count(accepted ?? 0)}/${count(drafted)})`;
}

function waited(seconds: number): string {
  return seconds < 0.0005 ? NONE : duration(seconds);
}
