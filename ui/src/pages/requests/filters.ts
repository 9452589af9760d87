/* What narrows the table: as the program is asked, and the same for records that the page holds itself. */
import { COLUMNS } from "./columns";
import type { Entry } from "./entry";

export interface Filters {
  from: string; // ids
  to: string;
  model: string;
  client: string;
  outcome: string;
  status: string; // 404 or 4xx
  cache: string;
  path: string; // a part of it
}

export interface Sort {
  column: string;
  down: boolean;
}

export const NO_FILTERS: Filters = {
  from: "",
  to: "",
  model: "",
  client: "",
  outcome: "",
  status: "",
  cache: "",
  path: "",
};
export const NEWEST: Sort = { column: "id", down: true };
export const ROWS = [10, 25, 50, 100, 250, 500] as const;
export const OUTCOMES = ["ok", "client_error", "engine_error", "client_left", "rejected", "timeout", "error"] as const;
export const CACHES = ["hit", "restored", "miss"] as const;

export function isSet(filters: Filters): boolean {
  return Object.values(filters).some((value) => value.trim());
}

export function equal(one: Filters, other: Filters): boolean {
  return Object.keys(NAMES).every((name) => one[name as keyof Filters] === other[name as keyof Filters]);
}

/** What an address asks for (`#/requests?model=alpha`), if it names any of them. */
export function filtersIn(address: string | undefined): Filters | undefined {
  const asked = new URLSearchParams(address);
  const named = Object.keys(NO_FILTERS).flatMap((name) => (asked.has(name) ? [[name, asked.get(name)]] : []));
  return named.length ? { ...NO_FILTERS, ...(Object.fromEntries(named) as Partial<Filters>) } : undefined;
}

/** The sort after somebody chose a head: the same one turns, another one begins with its largest. */
export function sortedBy(sort: Sort, column: string): Sort {
  return { column, down: sort.column === column ? !sort.down : true };
}

const NAMES: Readonly<Record<keyof Filters, string>> = {
  from: "min_id",
  to: "max_id",
  model: "model",
  client: "client",
  outcome: "outcome",
  status: "status",
  cache: "cache",
  path: "path",
};

/** The query of `api/metrics/activity`. */
export function query(filters: Filters, sort: Sort, page: number, limit: number): string {
  const asked = new URLSearchParams({ record: "1", page: String(page), limit: String(limit) });
  for (const [field, name] of Object.entries(NAMES)) {
    const value = filters[field as keyof Filters].trim();
    if (value) asked.set(name, value);
  }
  asked.set("sort", COLUMNS.find((column) => column.id === sort.column)?.sort ?? "id");
  asked.set("order", sort.down ? "desc" : "asc");
  return asked.toString();
}

/** Whether a record that the page holds fits; ids bound only rows, which are numbered. */
export function fits(entry: Entry, filters: Filters): boolean {
  const { record } = entry;
  const same = (wanted: string, has: string) => !wanted.trim() || wanted.trim() === has;
  const status = filters.status.trim().replaceAll("x", "\\d");
  return (
    same(filters.model, record.model) &&
    same(filters.client, record.client) &&
    same(filters.outcome, record.outcome) &&
    same(filters.cache, record.cache) &&
    (record.req_path || record.path).includes(filters.path.trim()) &&
    (!/^[1-5\\d]+$/.test(status) || new RegExp(`^${status}$`).test(String(record.status))) &&
    (!filters.from || Number(entry.key) >= Number(filters.from)) &&
    (!filters.to || Number(entry.key) <= Number(filters.to))
  );
}

/** The numbers that a pager shows: at most `most` pages around the present one. */
export function pageNumbers(page: number, pages: number, most = 7): number[] {
  const first = Math.max(1, Math.min(page - Math.floor(most / 2), pages - most + 1));
  return Array.from({ length: Math.min(most, pages) }, (_, place) => first + place);
}
