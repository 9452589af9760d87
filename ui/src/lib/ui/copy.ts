/* Copying, also on plain http, where browsers hide the clipboard from a page: a selection and the old command do then. */

/** Whether the text is in the clipboard now. `near`: an element in the same dialog, which holds the focus. */
export async function copy(text: string, near: Element = document.body): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text, near);
  }
}

function copyBySelection(text: string, near: Element): boolean {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  (near.closest("[role=dialog]") ?? document.body).append(area);
  const before = document.activeElement;
  area.select();
  try {
    return document.execCommand("copy");
  } catch {
    return false;
  } finally {
    area.remove();
    if (before instanceof HTMLElement) before.focus();
  }
}
