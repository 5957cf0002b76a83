/** The button that cancels a job. It asks for confirmation in its place. */

import type { CancelResult } from "../cancelRequests.js";
import { JobcastError } from "../errors.js";
import type { Texts } from "./texts.js";

/** Sends the request to cancel the job. */
export type SendCancel = () => Promise<CancelResult>;

export class CancelControl {
  readonly element: HTMLElement = create("div", "cancel");
  readonly #send: SendCancel;
  readonly #button = button("cancel-button", () => this.#ask());
  readonly #confirmation = create("div", "cancel-confirmation");
  readonly #question = create("span", "cancel-question");
  readonly #yes = button("cancel-yes", () => void this.#request());
  readonly #no = button("cancel-no", () => this.#close());
  readonly #problem = create("p", "cancel-problem");
  #texts: Texts | null = null;
  #jobId = "";

  constructor(send: SendCancel) {
    this.#send = send;
    this.#question.id = "question";
    this.#confirmation.setAttribute("role", "group");
    this.#confirmation.setAttribute("aria-labelledby", "question");
    this.#confirmation.append(this.#question, this.#yes, this.#no);
    this.#confirmation.hidden = true;
    this.#confirmation.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation(); // a dialog of the page stays open
        event.preventDefault();
        this.#close();
      }
    });
    this.#problem.setAttribute("role", "alert");
    this.#problem.hidden = true;
    this.element.append(this.#button, this.#confirmation, this.#problem);
  }

  /** @param isShown whether a request can cancel the job now. */
  render(jobId: string, texts: Texts, isShown: boolean): void {
    this.#texts = texts;
    this.#button.textContent = texts.cancel;
    this.#question.textContent = texts.cancelQuestion;
    this.#yes.textContent = texts.cancelYes;
    this.#no.textContent = texts.cancelNo;
    if (jobId !== this.#jobId || !isShown) {
      this.#jobId = jobId;
      this.#showConfirmation(false);
      this.#showProblem(null);
      this.#button.disabled = false;
    }
    this.element.hidden = !isShown;
  }

  #ask(): void {
    this.#showProblem(null);
    this.#showConfirmation(true);
    this.#no.focus();
  }

  #close(): void {
    this.#showConfirmation(false);
    this.#button.focus();
  }

  async #request(): Promise<void> {
    this.#close();
    this.#button.disabled = true;
    const jobId = this.#jobId;
    const problem = await this.#send().then(
      () => null,
      (error: unknown) => error,
    );
    if (jobId !== this.#jobId) {
      return;
    }
    this.#button.disabled = false;
    if (problem instanceof JobcastError) {
      this.#showProblem(problem.message);
    } else if (problem !== null) {
      throw problem;
    }
  }

  #showConfirmation(isShown: boolean): void {
    this.#confirmation.hidden = !isShown;
    this.#button.hidden = isShown;
  }

  #showProblem(reason: string | null): void {
    this.#problem.hidden = reason === null;
    this.#problem.textContent =
      reason === null
        ? ""
        : (this.#texts?.cancelRefused.replace("{reason}", () => reason) ?? reason);
  }
}

function create(tag: string, part: string): HTMLElement {
  const created = document.createElement(tag);
  created.setAttribute("part", part);
  return created;
}

function button(part: string, onClick: () => void): HTMLButtonElement {
  const created = document.createElement("button");
  created.type = "button";
  created.setAttribute("part", `button ${part}`);
  created.addEventListener("click", onClick);
  return created;
}
