/* What is ranked, how it is shown, and the ranking under way. */
import { askModel } from "../asking";
import { Job } from "../job.svelte";
import { chosen } from "../models.svelte";
import * as documents from "./documents";

class Rerank {
  query = $state(documents.QUERY);
  rows = $state.raw(documents.samples());
  order = $state<documents.Order>("none");
  json = $state<string>(); // what is typed, while JSON is shown
  tokens = $state<number | null>(null);
  job = new Job<documents.Ranked>();

  /** What is wrong with the JSON that is typed. */
  get fault(): string {
    if (this.json === undefined) return "";
    const read = documents.fromJson(this.json);
    return typeof read === "string" ? read : "";
  }

  /** Put the rows into an order; one that is written in later stays where it is. */
  sort(order: documents.Order): void {
    this.order = order;
    this.rows = documents.ordered(this.rows, order);
  }

  write(id: number, text: string): void {
    this.rows = documents.changed(this.rows, id, text);
  }

  remove(id: number): void {
    this.rows = documents.withEmpty(this.rows.filter((one) => one.id !== id));
  }

  /** Show the table, or the same as JSON. */
  show(json: boolean): void {
    this.json = json ? documents.toJson(this.query, this.rows) : undefined;
  }

  /** JSON was typed: as soon as it is right, the table has it. */
  typed(text: string): void {
    this.json = text;
    const read = documents.fromJson(text);
    if (typeof read === "string") return;
    this.query = read.query;
    this.rows = documents.rowsOf(read.documents, this.rows);
  }

  clear(): void {
    this.job.clear();
    this.query = "";
    this.rows = documents.withEmpty([]);
    this.tokens = null;
    if (this.json !== undefined) this.show(true);
  }

  sample(): void {
    this.query = documents.QUERY;
    this.rows = documents.samples();
    if (this.json !== undefined) this.show(true);
  }

  async rank(): Promise<void> {
    const sent = documents.filled(this.rows);
    this.rows = documents.scored(this.rows, sent, {});
    this.tokens = null;
    const body = { model: chosen.rerank.id, query: this.query, documents: sent.map((one) => one.text) };
    await this.job.run((asking) => askModel<documents.Ranked>("v1/rerank", { ...asking, method: "POST", body }));
    const answer = this.job.result;
    if (this.job.error || !answer) return;
    this.rows = documents.scored(this.rows, sent, answer);
    this.tokens = answer.usage?.total_tokens ?? null;
    this.sort(this.order === "none" ? "desc" : this.order);
  }
}

export const rerank = new Rerank();
