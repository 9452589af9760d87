/* The rows that are shown, and the sums over all of them. They come from the activity table, a page at a time; for a key
 * that may see only its own requests the page holds the last ones itself. What has ended shows up at most once a second,
 * and only on the first page, so that nothing moves while somebody reads. */
import { ask, told } from "../../lib/api/client";
import { live } from "../../lib/api/live.svelte";
import type { ActivityPage, ActivityStats, RequestList, RequestRecord } from "../../lib/api/types";
import { stored } from "../../lib/stores/stored.svelte";
import { arrange } from "./arrange";
import { NO_CHOICE, type Choice } from "../../lib/ui/columns";
import { entryOf, entryOfRow, keyOf, type Entry } from "./entry";
import { equal, fits, NEWEST, NO_FILTERS, query, sortedBy, type Filters, type Sort } from "./filters";
import { statsOf } from "./histogram";

const PAUSE = 1000; // ms between two looks at the newest rows
const STATS_PAUSE = 5000; // ms: the sums are over the whole table
const HELD = 1000;

const kept = {
  filters: stored<Filters>("requests.filters", NO_FILTERS),
  choice: stored<Choice>("requests.columns", NO_CHOICE),
  rows: stored("requests.rows", 25),
};

const place = $state({ page: 1, sort: NEWEST }); // in the table, while somebody looks at one of its requests

export class Requests {
  error = $state("");
  loaded = $state(false);
  stats = $state.raw<ActivityStats>();
  private told = $state.raw<Entry[]>([]); // one page of the program's table
  private count = $state(0);
  private records = $state.raw<RequestRecord[]>([]); // or all that the page holds, the newest first
  private number = 0; // of the newest question
  private looked = 0;
  private summed = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private later: ReturnType<typeof setTimeout> | undefined; // the next sums

  get page(): number {
    return place.page;
  }

  set page(next: number) {
    place.page = next;
  }

  get sort(): Sort {
    return place.sort;
  }

  set sort(next: Sort) {
    place.sort = next;
  }

  /** Somebody goes to another page, and will begin at the newest when they come back. */
  leave(): void {
    this.page = 1;
    this.sort = NEWEST;
  }

  get held(): boolean {
    return live.page?.own ?? false;
  }

  get filters(): Filters {
    return { ...NO_FILTERS, ...kept.filters.value };
  }

  set filters(next: Filters) {
    if (!equal(next, this.filters)) this.page = 1;
    kept.filters.value = next;
  }

  get choice(): Choice {
    return kept.choice.value;
  }

  set choice(next: Choice) {
    kept.choice.value = next;
  }

  get rows(): number {
    return kept.rows.value;
  }

  set rows(next: number) {
    kept.rows.value = next;
    this.page = 1;
  }

  private fitting = $derived.by(() =>
    this.records.map((record) => entryOf(record)).filter((one) => fits(one, this.filters)),
  );

  total = $derived.by(() => (this.held ? this.fitting.length : this.count));
  pages = $derived.by(() => Math.ceil(this.total / this.rows));
  shown = $derived.by(() => {
    const { choice, sort, page, rows } = this;
    return arrange(this.held ? this.fitting : this.told, { choice, sort, page, rows }, !this.held);
  });

  sortBy(column: string): void {
    this.sort = sortedBy(this.sort, column);
    this.page = 1;
  }

  /** Follow what is chosen and what ends. Called once, inside a component. */
  watch(): void {
    $effect(() => {
      if (live.phase === "live" && live.page) void this.load(this.asked);
    });
    $effect(() => {
      if (!live.requests.length) return;
      if (this.page === 1) this.soon();
      else if (!this.held) this.sumSoon();
    });
    $effect(() => {
      const again = () => this.soon();
      document.addEventListener("visibilitychange", again);
      return () => document.removeEventListener("visibilitychange", again);
    });
    $effect(() => () => {
      clearTimeout(this.timer);
      clearTimeout(this.later);
    });
  }

  private get asked(): string {
    return this.held ? "" : query(this.filters, this.sort, this.page, this.rows);
  }

  /** Something ended: look, but not more often than once a second, and not while nobody can see it. */
  private soon(): void {
    if (this.timer !== undefined || document.hidden) return;
    this.timer = setTimeout(
      () => {
        this.timer = undefined;
        if (this.page === 1) void (this.held ? this.join(this.records) : this.load(this.asked));
      },
      Math.max(0, this.looked + PAUSE - Date.now()),
    );
  }

  private async load(asked: string): Promise<void> {
    const number = ++this.number;
    this.looked = Date.now();
    try {
      if (this.held) this.join((await ask<RequestList>(`api/requests?limit=${HELD}`)).requests);
      else {
        const found = await ask<ActivityPage>(`api/metrics/activity?${asked}`);
        if (number !== this.number) return;
        this.told = found.data.flatMap((row) => entryOfRow(row) ?? []);
        this.count = found.total;
        this.sumSoon();
      }
      this.page = Math.min(this.page, this.pages) || 1; // rows may have gone
      this.error = "";
    } catch (error) {
      if (number === this.number) this.error = told(error);
    } finally {
      this.loaded = true;
    }
  }

  /** The sums, now or as soon as they may be asked for again: none that ended is left out. */
  private sumSoon(): void {
    this.later ??= setTimeout(() => void this.sum(), Math.max(0, this.summed + STATS_PAUSE - Date.now()));
  }

  private async sum(): Promise<void> {
    this.later = undefined;
    this.summed = Date.now();
    try {
      this.stats = await ask<ActivityStats>("api/metrics/stats");
    } catch (error) {
      this.error = told(error);
    }
  }

  /** Records, and those that ended since; the newest of what the page holds. */
  private join(records: RequestRecord[]): void {
    this.looked = Date.now();
    const name = (record: RequestRecord) => `${keyOf(record)} ${record.started}`;
    const known = records.map(name);
    this.records = [...live.requests.filter((record) => !known.includes(name(record))), ...records].slice(0, HELD);
    this.stats = statsOf(this.records.map((record) => entryOf(record)));
  }
}
