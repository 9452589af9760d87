/* A part of the page that is gone: the program was updated while the page was open, and its files have other names now.
 * Loading the page anew brings the new ones. If that was just tried, something else is wrong, and the error is shown. */

const OFTEN = 10_000; // ms
const WHEN = "bioproxy.loaded-anew";

export function loadAnew(event: Event, now = Date.now(), reload = () => location.reload()): void {
  if (now - Number(sessionStorage.getItem(WHEN) ?? 0) < OFTEN) return;
  sessionStorage.setItem(WHEN, String(now));
  event.preventDefault(); // nobody need read of it
  reload();
}
