/* One request as the table shows it, whether a row of the activity table told it or a record. What nobody said is null. */
import type { ActivityRow, RequestRecord } from "../../lib/api/types";

export interface Entry {
  key: string; // where it opens: #/requests/<key>
  at: number; // unix time of its end
  kind: string; // content type of the answer
  cached: number | null;
  prompt: number | null; // tokens that were evaluated
  generated: number | null;
  drafted: number | null;
  accepted: number | null;
  prefillSpeed: number | null;
  decodeSpeed: number | null;
  seconds: number;
  capture: boolean;
  record: RequestRecord;
}

const CLIENT_LEFT = 499; // the table's number for a client that left before there was an answer

/** The number of a row says which request it is; a client may give two requests one id. */
export function keyOf(record: RequestRecord): string {
  return record.activity ? String(record.activity) : record.id;
}

export function entryOf(record: RequestRecord, capture = false): Entry {
  const said = record.usage && Object.values(record.usage).some(Boolean) ? record.usage : null;
  const drafted = known(said?.draft_tokens) || null;
  return {
    key: keyOf(record),
    at: record.started + record.total,
    kind: record.content_type,
    cached: record.tokens_cached ?? known(said?.cache_tokens),
    prompt: record.tokens_evaluated ?? known(said?.input_tokens),
    generated: record.tokens_generated ?? known(said?.output_tokens),
    drafted,
    accepted: drafted && known(said?.draft_acc_tokens),
    prefillSpeed: speed(said?.prompt_per_second, record.tokens_evaluated, record.prefill),
    decodeSpeed: speed(said?.tokens_per_second, record.tokens_generated, record.decode),
    seconds: record.total,
    capture,
    record: { ...record, status: record.status || CLIENT_LEFT },
  };
}

/** A row that was asked for with `record=1`. */
export function entryOfRow(row: ActivityRow): Entry | undefined {
  return row.request && { ...entryOf(row.request, row.has_capture), seconds: row.duration_ms / 1000 };
}

function known(value: number | undefined): number | null {
  return value === undefined || value < 0 ? null : value;
}

function speed(said: number | undefined, tokens: number | null, seconds: number | null): number | null {
  if (said !== undefined && said > 0) return said;
  return tokens && seconds ? tokens / seconds : null;
}
