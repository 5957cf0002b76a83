/** Shows the state of a job in a shadow root. */

import { isCancellable, type JobState } from "../job.js";
import { Announcements } from "./announcements.js";
import { CancelControl, type SendCancel } from "./cancelControl.js";
import { LogView } from "./logView.js";
import { STYLES } from "./styles.js";
import { formatDuration, formatPercentage, type Texts } from "./texts.js";

/** What the attributes of the element determine. */
export interface ViewOptions {
  readonly texts: Texts;
  readonly locale: string | undefined;
  readonly label: string | null;
  readonly showsLog: boolean;
  readonly showsCancel: boolean;
}

export class JobView {
  readonly #title = element("span", "title");
  readonly #message = element("span", "message");
  readonly #percentage = element("span", "percentage");
  readonly #bar = element("div", "bar", { role: "progressbar" });
  readonly #fill = element("div", "fill");
  readonly #time = element("span", "time");
  readonly #error = element("p", "error", { role: "alert" });
  readonly #gap = element("p", "gap");
  readonly #log = element("div", "log", { role: "log", "aria-live": "off", tabindex: "0" });
  readonly #logView = new LogView(this.#log);
  readonly #cancel: CancelControl;
  readonly #announcements: Announcements;

  constructor(root: ShadowRoot, sendCancel: SendCancel) {
    this.#cancel = new CancelControl(sendCancel);
    const live = element("span", "live", { role: "status", class: "live" });
    this.#announcements = new Announcements(live);
    this.#bar.append(this.#fill);
    root.append(
      row(this.#title),
      row(this.#message, this.#percentage),
      this.#bar,
      row(this.#time),
      this.#error,
      this.#cancel.element,
      this.#gap,
      this.#log,
      live,
    );
    adoptStyles(root);
  }

  render(state: JobState, options: ViewOptions): void {
    const { texts, locale } = options;
    const error = errorText(state, texts);
    const message = error === null || state.error ? messageText(state, texts) : "";
    const percentage = shownPercentage(state);
    const percent = percentage === null ? "" : formatPercentage(percentage, locale);
    setText(this.#title, state.title ?? "");
    setText(this.#message, message);
    setText(this.#percentage, percent);
    setText(this.#time, timeText(state, options));
    setText(this.#error, error ?? "");
    setText(this.#gap, options.showsLog && hasGap(state) ? texts.gap : "");
    this.#renderBar(state, percentage, options.label ?? state.title ?? texts.label);
    const canCancel = state.refusal === null && isCancellable(state);
    this.#cancel.render(state.jobId, texts, options.showsCancel && canCancel);
    this.#log.hidden = !options.showsLog;
    this.#log.setAttribute("aria-label", texts.log);
    if (options.showsLog) {
      this.#logView.render(state.logs);
    }
    this.#announcements.announce(
      state.status,
      percentage,
      [percent, message].filter(Boolean).join(", "),
    );
  }

  #renderBar(state: JobState, percentage: number | null, label: string): void {
    const bar = this.#bar;
    const isActive = state.status === "started" || state.status === "cancelling";
    bar.hidden = state.refusal !== null && state.updatedAt === null;
    bar.classList.toggle("unknown", percentage === null && isActive);
    bar.setAttribute("aria-label", label);
    if (percentage === null) {
      bar.removeAttribute("aria-valuenow");
      this.#fill.style.removeProperty("width");
    } else {
      bar.setAttribute("aria-valuenow", String(Math.floor(percentage)));
      this.#fill.style.width = `${percentage}%`;
    }
  }
}

function errorText(state: JobState, texts: Texts): string | null {
  const { refusal, error } = state;
  if (refusal?.code === "job_not_found") {
    return texts.notFound;
  }
  if (refusal?.code === "token_missing") {
    return texts.signedOut;
  }
  return refusal?.message ?? error?.message ?? null;
}

function messageText(state: JobState, texts: Texts): string {
  const { status, message, connection } = state;
  if (state.endedAt !== null) {
    return textOf(texts, status);
  }
  if (connection === "reconnecting" || (connection !== "connected" && state.updatedAt === null)) {
    return connection === "reconnecting" ? texts.reconnecting : texts.connecting;
  }
  return status === "started" ? (message ?? texts.started) : textOf(texts, status);
}

/** A status of a later server is shown as it is. */
function textOf(texts: Texts, status: string): string {
  return Object.hasOwn(texts, status) ? texts[status as keyof Texts] : status;
}

function shownPercentage({ status, percentage }: JobState): number | null {
  return status === "complete" ? 100 : percentage;
}

function timeText(state: JobState, { texts, locale }: ViewOptions): string {
  const { eta, startedAt, endedAt, status } = state;
  if (endedAt !== null && startedAt !== null) {
    const seconds = (Date.parse(endedAt) - Date.parse(startedAt)) / 1000;
    return texts.duration.replace("{time}", formatDuration(seconds, locale));
  }
  return eta !== null && status === "started"
    ? texts.timeLeft.replace("{time}", formatDuration(eta, locale))
    : "";
}

function hasGap({ gaps, droppedLogs }: JobState): boolean {
  return gaps.length > 0 || droppedLogs > 0;
}

function element(tag: string, part: string, attributes: Record<string, string> = {}): HTMLElement {
  const created = document.createElement(tag);
  created.setAttribute("part", part);
  for (const [name, value] of Object.entries(attributes)) {
    created.setAttribute(name, value);
  }
  return created;
}

function row(...children: HTMLElement[]): HTMLElement {
  const created = document.createElement("div");
  created.className = "row";
  created.append(...children);
  return created;
}

/** Set the text of an element, and hide it without one. An equal text is no change for a screen reader. */
function setText(target: HTMLElement, text: string): void {
  target.hidden = text === "";
  if (target.textContent !== text) {
    target.textContent = text;
  }
}

let sheet: CSSStyleSheet | null = null;

/** A constructed style sheet, unlike a `<style>`, works with any content security policy. */
function adoptStyles(root: ShadowRoot): void {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLES);
  }
  root.adoptedStyleSheets = [sheet];
}
