/* The list of snapshots: asked for when the page opens, when the program's own list has changed, and once a minute,
 * because what they are worth fades. */
import { act } from "../../lib/act";
import { ask, told } from "../../lib/api/client";
import { live } from "../../lib/api/live.svelte";
import type { FolderShares, ShelfStatistics, SnapshotList, SnapshotRow } from "../../lib/api/types";
import { toast } from "svelte-sonner";

const PAUSE = 500; // ms between two looks at most
const MINUTE = 60_000;

export class Snapshots {
  rows = $state.raw<SnapshotRow[]>([]);
  folders = $state.raw<ShelfStatistics[]>([]);
  shares = $state.raw<FolderShares[]>([]);
  loaded = $state(false);
  error = $state("");
  busy = $state.raw<Readonly<Record<string, string>>>({}); // what is done now, by name
  may = $derived(live.page?.admin ?? true); // a key for certain models manages nothing
  private looked = 0;
  private number = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;

  /** Follow the program for as long as the component that calls this is there. */
  watch(): void {
    $effect(() => {
      if (live.status?.snapshots) this.soon();
    });
    $effect(() => {
      const timer = setInterval(() => this.soon(), MINUTE);
      const seen = () => this.soon();
      document.addEventListener("visibilitychange", seen);
      return () => {
        document.removeEventListener("visibilitychange", seen);
        clearInterval(timer);
        clearTimeout(this.timer);
      };
    });
  }

  private soon(): void {
    if (document.hidden) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.look(), Math.max(0, this.looked + PAUSE - Date.now()));
  }

  async look(): Promise<void> {
    this.looked = Date.now();
    const number = ++this.number;
    try {
      const found = await ask<SnapshotList>("api/snapshots");
      if (number !== this.number) return; // a later one was asked for
      this.rows = found.snapshots;
      this.folders = found.folders;
      this.shares = found.shares;
      this.error = "";
      this.loaded = true;
    } catch (error) {
      this.error = told(error);
    }
  }

  async verify(row: SnapshotRow): Promise<void> {
    await this.work(row, "verifying", async () => {
      const found = await ask<{ fault: string }>(address(row, "/verify"), { method: "POST" });
      if (found.fault) toast.error(`It is not whole: ${found.fault}`, { duration: 10_000 });
      else toast.success("Every byte is as it was written");
    });
  }

  async pin(row: SnapshotRow): Promise<void> {
    const method = row.pinned ? "DELETE" : "PUT";
    await this.work(row, row.pinned ? "unpinning" : "pinning", () => ask(address(row, "/pin"), { method }));
  }

  /** Whether it is gone. */
  async remove(row: SnapshotRow): Promise<boolean> {
    return this.work(row, "deleting", () => ask(address(row), { method: "DELETE" }), "Deleted");
  }

  private async work(row: SnapshotRow, doing: string, work: () => Promise<unknown>, done = ""): Promise<boolean> {
    this.busy = { ...this.busy, [row.name]: doing };
    try {
      return await act(work, done);
    } finally {
      await this.look();
      this.busy = Object.fromEntries(Object.entries(this.busy).filter(([name]) => name !== row.name));
    }
  }
}

function address(row: SnapshotRow, rest = ""): string {
  return `api/snapshots/${encodeURIComponent(row.name)}${rest}`;
}
