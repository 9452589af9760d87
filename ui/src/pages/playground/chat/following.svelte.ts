/* The page stays at its end while an answer grows, unless somebody scrolled up. */
const NEAR = 80; // pixels from the end that still count as the end

export class Following {
  /** Whether the end is in sight. */
  at = $state(true);
  private top = 0; // where the page was

  /** Watches the page's own scrolling; returns what ends that. */
  watch(): () => void {
    const look = () => this.look();
    const follow = () => this.at && this.toEnd();
    addEventListener("scroll", look, { passive: true });
    addEventListener("resize", follow); // a phone's keyboard, above all
    const grown = new ResizeObserver(follow);
    grown.observe(document.body);
    return () => {
      removeEventListener("scroll", look);
      removeEventListener("resize", follow);
      grown.disconnect();
    };
  }

  /** What grew since is no reason to stop following, only a move upwards is. */
  private look(): void {
    const { scrollTop } = document.documentElement;
    this.at = distance() < NEAR || (this.at && scrollTop >= this.top);
    this.top = scrollTop;
  }

  toEnd(): void {
    this.at = true;
    document.documentElement.scrollTop = document.documentElement.scrollHeight;
  }
}

function distance(): number {
  const { scrollHeight, scrollTop, clientHeight } = document.documentElement;
  return scrollHeight - scrollTop - clientHeight;
}
