/* What the program knows of one template beside the status: its text, and what changed in it. */
import { ask, told } from "../../lib/api/client";
import type { TemplateDetail } from "../../lib/api/types";
import { address } from "./summary";

export class Detail {
  found = $state.raw<TemplateDetail>();
  error = $state("");
  private number = 0;

  /** `owner`: the model whose own template it is, or "". */
  async look(prefix: string, owner: string): Promise<void> {
    const number = ++this.number;
    const query = owner ? `?model=${encodeURIComponent(owner)}` : "";
    try {
      const found = await ask<TemplateDetail>(`api/templates/${address(prefix)}${query}`);
      if (number === this.number) [this.found, this.error] = [found, ""];
    } catch (error) {
      if (number === this.number) this.error = told(error);
    }
  }
}
