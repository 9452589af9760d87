/* How much of the Playground runs now: it goes on while one looks at another page, so the sidebar shows it. */
let running = $state(0);

export const playing = {
  get running(): number {
    return running;
  },
  /** Counts until `work` has ended. */
  async during<T>(work: Promise<T>): Promise<T> {
    running += 1;
    try {
      return await work;
    } finally {
      running -= 1;
    }
  },
};
