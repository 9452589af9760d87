/* Where a model's own pages are, on the proxy port; "" if that cannot be found from here. */
import { root, segment } from "../../lib/api/client";
import type { PageInfo } from "../../lib/api/types";

export function serverOf(model: string, page: PageInfo | undefined): string {
  if (!page?.proxy) return "";
  return new URL(page.many ? `upstream/${segment(model)}/` : ".", new URL(page.proxy, root)).href;
}
