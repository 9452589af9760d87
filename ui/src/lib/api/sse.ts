/* Server-sent events over fetch: EventSource cannot send a key, and hides why it failed. The format is the HTML standard's
 * (section 9.2.6): lines end with LF, CR or CRLF, an empty line sends the event, `id` stays until it is set anew. */

export interface Message {
  event: string;
  data: string;
  id: string;
}

/** Cuts events out of text that comes in pieces. */
export class Cutter {
  private rest = "";
  private event = "";
  private data: string[] = [];
  id = "";

  /** The events that are whole now; `comments` counts lines that only show that the stream lives. */
  feed(text: string): Message[] {
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() ?? "";
    const found: Message[] = [];
    for (const line of lines) {
      if (line === "") {
        if (this.data.length) found.push({ event: this.event || "message", data: this.data.join("\n"), id: this.id });
        this.event = "";
        this.data = [];
      } else this.take(line);
    }
    return found;
  }

  private take(line: string): void {
    const at = line.indexOf(":");
    const name = at < 0 ? line : line.slice(0, at);
    const value = at < 0 ? "" : line.slice(line[at + 1] === " " ? at + 2 : at + 1);
    if (name === "event") this.event = value;
    else if (name === "data") this.data.push(value);
    else if (name === "id" && !value.includes("\0")) this.id = value;
  }
}

const SLICE = 12; // ms that events may take before the page gets its turn

/** All events of an answer, as they come. `alive` is called for each piece, also for comments. A stream that comes faster
 * than its events are dealt with would leave no time for anything else; so the page gets its turn in between. */
export async function* messages(answer: Response, alive: () => void = () => undefined): AsyncGenerator<Message> {
  if (!answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  const cutter = new Cutter();
  let began = performance.now();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      for (const message of cutter.feed(value)) {
        yield message;
        if (performance.now() - began < SLICE) continue;
        await othersTurn();
        began = performance.now();
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** Lets the browser do what else there is. A timer would do it only once a second in a hidden tab. */
function othersTurn(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
