/* A part that scrolls by itself can be scrolled with the keyboard: Tab leads there while there is something to scroll. */

export function reachable(element: HTMLElement): () => void {
  const look = () => {
    if (element.scrollWidth > element.clientWidth + 1) element.tabIndex = 0;
    else element.removeAttribute("tabindex");
  };
  const watch = new ResizeObserver(look);
  watch.observe(element);
  for (const child of element.children) watch.observe(child);
  return () => watch.disconnect();
}
