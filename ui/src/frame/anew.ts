/* A part of the page that does not come. If the program answers, it was updated while the page was open, and its files have
 * other names now: loading the page anew brings the new ones. If that was just tried, something else is wrong, and the error
 * is shown. If the program does not answer (it is being restarted, or the network is gone), the page is loaded anew once it
 * does: earlier, the browser would put an error page of its own in our place, which stays. */
import { open } from "../lib/api/client";

const OFTEN = 10_000; // ms
const PAUSE = 1000; // ms between two looks
const WHEN = "bioproxy.loaded-anew";

let missing: string | undefined; // the address of what did not come, while the program does not answer

export function loadAnew(event: Event, { answers = answered, reload = () => location.reload() } = {}): void {
  if (Date.now() - Number(sessionStorage.getItem(WHEN) ?? 0) < OFTEN) return;
  event.preventDefault(); // nobody need read of it
  const waits = missing !== undefined;
  missing = location.hash;
  if (waits) return;
  void answers().then(() => {
    const there = location.hash === missing; // whoever went elsewhere meanwhile stays there
    missing = undefined;
    if (!there) return;
    sessionStorage.setItem(WHEN, String(Date.now()));
    reload();
  });
}

/** Once the program answers. */
async function answered(): Promise<void> {
  for (;;) {
    if (await open("ui/", { method: "HEAD" }).catch(() => undefined)) return;
    await new Promise((done) => setTimeout(done, PAUSE));
  }
}
