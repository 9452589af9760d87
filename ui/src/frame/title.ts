/* What the browser's tab says: whether the page is live, where one is, and whose page it is. */
import type { Phase } from "../lib/api/live.svelte";

const MARKS: Readonly<Record<Phase, string>> = { connecting: "○", live: "●", lost: "◐", denied: "▲" };

export function tabTitle(phase: Phase, title: string, place = ""): string {
  return `${MARKS[phase]} ${[place, title || "bioproxy"].filter(Boolean).join(" · ")}`;
}

/** What is kept of a title that somebody typed; "" if it is the program's own, which may change. */
export function keptTitle(typed: string, own: string, most: number): string {
  const title = typed.replaceAll(/\s+/g, " ").trim().slice(0, most).trim();
  return title === own ? "" : title;
}
