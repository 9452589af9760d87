/* The columns of the requests that are under way. */
import type { InflightRequest } from "../../lib/api/types";
import { bytes, NONE } from "../../lib/format";

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
