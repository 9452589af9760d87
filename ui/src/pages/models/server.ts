/* Where a model's own pages are: behind ours among many models; of one engine at the proxy port. */
import { root, segment } from "../../lib/api/client";
import type { PageInfo } from "../../lib/api/types";

export function serverOf(model: string, page: PageInfo | undefined): string {
  if (page && !page.many) return page.proxy ? new URL(page.proxy, root).href : "";
  return new URL(`upstream/${segment(model)}/`, root).href;
}
