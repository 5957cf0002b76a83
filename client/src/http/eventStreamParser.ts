/** A message of an event stream (`text/event-stream`, WHATWG HTML). */
export interface StreamMessage {
  readonly event: string;
  readonly data: string;
}

/** Splits the text of an event stream into messages. A chunk may end anywhere. */
export class EventStreamParser {
  /** The server's reconnection delay in ms; null before the server has sent one. */
  retry: number | null = null;
  #rest = "";
  #event = "";
  #data: string[] = [];

  /** Add a chunk and return the messages that it completes. */
  push(chunk: string): StreamMessage[] {
    const lines = (this.#rest + chunk).split("\n");
    this.#rest = lines.pop() ?? "";
    return lines.flatMap((line) => this.#readLine(line.replace(/\r$/, "")));
  }

  #readLine(line: string): StreamMessage[] {
    if (line === "") {
      return this.#endMessage();
    }
    const [, field, value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (field === "event") {
      this.#event = value;
    } else if (field === "data") {
      this.#data.push(value);
    } else if (field === "retry" && /^\d+$/.test(value)) {
      this.retry = Number(value);
    }
    return [];
  }

  #endMessage(): StreamMessage[] {
    const message = { event: this.#event, data: this.#data.join("\n") };
    const isEmpty = this.#data.length === 0;
    this.#event = "";
    this.#data = [];
    return isEmpty ? [] : [message];
  }
}
