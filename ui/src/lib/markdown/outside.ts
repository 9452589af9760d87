/* Addresses that somebody else wrote: which may be opened. */
import { root } from "../api/client";
import { live } from "../api/live.svelte";

const OUTSIDE = new Set(["http:", "https:", "mailto:"]);

/** The address if it leads out of this program, and may be opened; undefined otherwise. */
export function outside(address: string | null): URL | undefined {
  if (!address || !/^[a-z]+:/i.test(address)) return undefined; // a relative one is an address of ours
  const url = URL.parse(address);
  if (!url || !OUTSIDE.has(url.protocol)) return undefined;
  const ours = [location.origin, root.origin, URL.parse(live.page?.proxy ?? "")?.origin];
  return ours.includes(url.origin) ? undefined : url;
}
