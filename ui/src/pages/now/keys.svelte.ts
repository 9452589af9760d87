/* What API keys used. The status has all of them; one of several keys asks for its own, whenever a request has ended. */
import { ask } from "../../lib/api/client";
import { live } from "../../lib/api/live.svelte";
import type { KeyList, KeyStatistics } from "../../lib/api/types";

export class Keys {
  private mine = $state.raw<readonly KeyStatistics[]>([]);
  rows = $derived<readonly KeyStatistics[]>(live.page?.own ? this.mine : (live.status?.keys ?? []));

  constructor() {
    $effect(() => {
      if (live.page?.own && live.requests) void this.look();
    });
  }

  private async look(): Promise<void> {
    try {
      this.mine = (await ask<KeyList>("api/keys")).keys;
    } catch {
      this.mine = []; // the stream tells what is wrong
    }
  }
}
