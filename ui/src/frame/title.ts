/* What the browser's tab says: whether the page is live, where one is, and whose page it is. */
import type { Phase } from "../lib/api/live.svelte";

const MARKS: Readonly<Record<Phase, string>> = { connecting: "○", live: "●", lost: "◐", denied: "▲" };

export function tabTitle(phase: Phase, title: string, place = ""): string {
  return `${MARKS[phase]} ${[place, title || "bioproxy"].filter(Boolean).join(" · ")}`;
}
