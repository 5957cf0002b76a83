import { isTerminal, type State } from "../protocol.js";

const STEP = 25; // per cent between two announcements

/** Selects what a screen reader announces: changes of the status, and some of the percentages. */
export class Announcements {
  readonly #region: HTMLElement;
  #status: State | null = null;
  #step = 0;

  constructor(region: HTMLElement) {
    this.#region = region;
  }

  announce(status: State, percentage: number | null, text: string): void {
    const step = Math.floor((percentage ?? 0) / STEP);
    const isNewStatus = this.#status !== null && status !== this.#status;
    const isNewStep = step > this.#step && !isTerminal(status);
    if (isNewStatus || (isNewStep && this.#status !== null)) {
      this.#region.textContent = text;
    }
    this.#status = status;
    this.#step = step;
  }
}
