/* The columns of the requests that are under way. */
import type { AnyStatus, InflightRequest } from "../../lib/api/types";
import { bytes, counted, NONE } from "../../lib/format";
import { isFleet } from "../../lib/machine";

export interface Column {
  id: string;
  label: string;
  number?: boolean;
  text?: (one: InflightRequest) => string; // others are drawn by the table
}

export const COLUMNS: readonly Column[] = [
  { id: "cancel", label: "Cancel" },
  { id: "elapsed", label: "Elapsed", number: true },
  { id: "stage", label: "Stage" },
  { id: "model", label: "Model" },
  { id: "request", label: "Request", text: (one) => `${one.method} ${one.req_path}` },
  { id: "address", label: "Address", text: (one) => one.remote_ip || NONE },
  { id: "agent", label: "User agent", text: (one) => one.req_headers["User-Agent"] || NONE },
  { id: "session", label: "Session", text: (one) => one.session || NONE },
  { id: "bytes", label: "Bytes received", number: true, text: (one) => bytes(one.resp_bytes) },
];

/** Seconds since it came; clocks of two machines may differ by more than it has run. */
export function elapsed(one: InflightRequest, now: number): number {
  return Math.max(0, now - Date.parse(one.timestamp) / 1000);
}

/** Why nothing is listed: of one engine bioproxy counts the requests, but keeps no list of them. */
export function unlisted(status: AnyStatus | undefined): string {
  if (status === undefined || isFleet(status)) {
    return "No requests are under way. One that is asked now shows up here until its last byte.";
  }
  const sum = (of: Record<string, number>) => Object.values(of).reduce((total, one) => total + one, 0);
  const runs = counted(sum(status.gate.running), "request");
  return `${runs} under way, ${sum(status.gate.waiting)} in the queue. With one engine they are counted, not listed.`;
}
