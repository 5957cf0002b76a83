import type { LogLine } from "../record.js";

/** Shows log lines. It adds and removes only lines that change, and scrolls if the end is in view. */
export class LogView {
  readonly #container: HTMLElement;
  #lines: readonly LogLine[] = [];

  constructor(container: HTMLElement) {
    this.#container = container;
  }

  render(lines: readonly LogLine[]): void {
    if (lines === this.#lines) {
      return;
    }
    const container = this.#container;
    const atEnd = container.scrollHeight - container.scrollTop - container.clientHeight < 8;
    const last = this.#lines.at(-1);
    const known = last ? lines.lastIndexOf(last) + 1 : 0;
    const dropped = this.#lines.length - known;
    for (let count = 0; count < dropped; count += 1) {
      container.firstElementChild?.remove();
    }
    container.append(...lines.slice(known).map(toElement));
    this.#lines = lines;
    if (atEnd) {
      container.scrollTop = container.scrollHeight;
    }
  }
}

function toElement({ level, message, timestamp }: LogLine): HTMLElement {
  const line = document.createElement("div");
  line.setAttribute("part", `line line-${level.replace(/\W/g, "")}`);
  line.title = `${level}, ${new Date(timestamp).toLocaleTimeString()}`;
  line.textContent = message;
  return line;
}
