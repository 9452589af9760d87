/* The contexts: asked for when the page opens, and when snapshots change. */
import { act } from "../../lib/act";
import { ask, open, told } from "../../lib/api/client";
import type { ContextList, ContextRow, Room } from "../../lib/api/types";
import { download } from "../../lib/download";
import { key } from "../../lib/stores/key.svelte";

const AT = "api/contexts";

export class Contexts {
  rows = $state.raw<ContextRow[]>([]);
  room = $state.raw<Room | null>(null);
  error = $state("");
  busy = $state(""); // the snapshot of the one that something is done with, or "new"

  async look(): Promise<void> {
    try {
      const found = await ask<ContextList>(AT);
      this.rows = found.contexts;
      this.room = found.room;
      this.error = "";
    } catch (error) {
      this.error = told(error);
    }
  }

  keep(name: string, from: string): Promise<boolean> {
    return this.work("new", () => ask(AT, { method: "POST", body: { name, from } }), `${name} is kept`);
  }

  rename(row: ContextRow, name: string): Promise<boolean> {
    return this.work(
      row.snapshot,
      () => ask(address(row), { method: "PATCH", body: { name } }),
      `It is called ${name}`,
    );
  }

  remove(row: ContextRow): Promise<boolean> {
    return this.work(row.snapshot, () => ask(address(row), { method: "DELETE" }), "Deleted");
  }

  /** Have the browser save its file. With a key it has to be in memory first, for a link shows none. */
  save(row: ContextRow): Promise<boolean> {
    const path = address(row, "/export");
    return this.work(row.snapshot, async () => {
      if (!key.value) return follow(`../${path}`, `${row.name}.tar`);
      download(`${row.name}.tar`, await (await open(path)).blob());
    });
  }

  private async work(what: string, work: () => Promise<unknown>, done = ""): Promise<boolean> {
    this.busy = what;
    try {
      return await act(work, done);
    } finally {
      await this.look();
      this.busy = "";
    }
  }
}

/** By its name, which may be another key's as well: then the program asks for the snapshot. */
function address(row: ContextRow, rest = ""): string {
  return `${AT}/${encodeURIComponent(row.name)}${rest}`;
}

function follow(url: string, name: string): void {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
}
