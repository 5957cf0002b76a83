/** The element `<jobcast-job>`. */

import type { CancelOptions, CancelResult } from "../cancelRequests.js";
import { CancelRefused } from "../errors.js";
import type { HttpJobClient } from "../http/httpJobClient.js";
import type { Follower, Job, JobState } from "../job.js";
import type { JobComplete, JobError, JobEvent, JobGap } from "../protocol.js";
import type { GetToken } from "../token.js";
import { type Source, sharedClient } from "./sharedClients.js";
import { localeOf, TEXTS, type Texts } from "./texts.js";
import { JobView } from "./view.js";

/** The name of the element. */
export const TAG = "jobcast-job";

/** The events of the element, with the type of their `detail`. */
export interface JobElementEvents {
  "jobcast:status": Extract<JobEvent, { type: "job_status" }>;
  "jobcast:info": Extract<JobEvent, { type: "job_info" }>;
  "jobcast:progress": Extract<JobEvent, { type: "job_progress" }>;
  "jobcast:log": Extract<JobEvent, { type: "job_log" }>;
  "jobcast:end": JobComplete | JobError;
  "jobcast:refused": { readonly code: string; readonly message: string };
}

const EVENTS = {
  job_status: "jobcast:status",
  job_info: "jobcast:info",
  job_progress: "jobcast:progress",
  job_log: "jobcast:log",
} as const;
/** Attributes that select the job and its server. The others only change what is shown. */
const SOURCE_ATTRIBUTES: readonly string[] = [
  "job-id",
  "token",
  "token-url",
  "base-url",
  "csrf-token",
  "csrf-header",
];
const CSRF_HEADER = "X-CSRFToken"; // the default of Django and of Flask-WTF

// Servers that render pages import the module too; they have no elements.
const Base = (globalThis.HTMLElement ?? class {}) as typeof HTMLElement;

/**
 * Shows a job: its progress, its message, the time left, its log, and how it ends.
 *
 * @example
 * <jobcast-job job-id="f1c0ffee" token-url="/jobcast/token"></jobcast-job>
 */
export class JobElement extends Base {
  static readonly observedAttributes: readonly string[] = [
    ...SOURCE_ATTRIBUTES,
    "log",
    "label",
    "cancellable",
  ];
  /** The texts of all elements. */
  static readonly texts: Texts = { ...TEXTS };
  #view: JobView | null = null;
  #getToken: GetToken | null = null;
  #client: HttpJobClient | null = null;
  #job: Job | null = null;
  #stop: (() => void) | null = null;
  #isStartScheduled = false;

  /** Returns a token. It replaces `token-url` where a page has its own way to request tokens. */
  get getToken(): GetToken | null {
    return this.#getToken;
  }

  set getToken(getToken: GetToken | null) {
    this.#getToken = getToken;
    this.#scheduleStart();
  }

  /** The state of the job; null without a `job-id`. */
  get state(): JobState | null {
    return this.#job?.getSnapshot() ?? null;
  }

  /** Retry a refused job or a lost connection now. */
  reconnect(): void {
    this.#client?.reconnect();
  }

  /**
   * Cancel the job, without a question.
   *
   * @throws CancelRefused if the server refuses, or does not answer.
   */
  async cancel(options?: CancelOptions): Promise<CancelResult> {
    if (!this.#job || !this.#client) {
      throw new CancelRefused("", "no_job", "the element has no job-id, or is in no document");
    }
    return this.#client.cancel(this.#job.jobId, options);
  }

  connectedCallback(): void {
    this.#adoptProperty();
    this.#scheduleStart();
  }

  disconnectedCallback(): void {
    // An element that moves within the page is connected again in the same tick.
    queueMicrotask(() => this.isConnected || this.#end());
  }

  attributeChangedCallback(name: string): void {
    if (SOURCE_ATTRIBUTES.includes(name)) {
      this.#scheduleStart();
    } else {
      this.#render();
    }
  }

  /** A script may have set the property before the element was defined. */
  #adoptProperty(): void {
    if (Object.hasOwn(this, "getToken")) {
      const { getToken } = this;
      delete (this as { getToken?: unknown }).getToken;
      this.getToken = getToken;
    }
  }

  /** Several attributes change together. */
  #scheduleStart(): void {
    if (this.isConnected && !this.#isStartScheduled) {
      this.#isStartScheduled = true;
      queueMicrotask(() => {
        this.#isStartScheduled = false;
        this.#end();
        if (this.isConnected) {
          this.#start();
        }
      });
    }
  }

  #start(): void {
    const jobId = this.getAttribute("job-id");
    if (!jobId) {
      this.#clear();
      return;
    }
    this.#client = sharedClient(this.#source());
    const job = this.#client.job(jobId);
    this.#job = job;
    const stops = [job.subscribe(() => this.#render()), job.follow(new EventDispatcher(this, job))];
    this.#stop = () => {
      for (const stop of stops) {
        stop();
      }
    };
    this.#render();
  }

  #end(): void {
    this.#stop?.();
    this.#stop = null;
    this.#job = null;
    this.#client = null;
  }

  /** Show nothing: there is no job. */
  #clear(): void {
    this.#view = null;
    this.shadowRoot?.replaceChildren();
    this.removeAttribute("status");
  }

  #source(): Source {
    const tokenUrl = this.getAttribute("token-url");
    const csrfToken = this.getAttribute("csrf-token");
    const header = this.getAttribute("csrf-header") ?? CSRF_HEADER;
    const csrf = csrfToken ? { header, token: csrfToken } : undefined;
    return {
      baseUrl: this.getAttribute("base-url") ?? undefined,
      getToken: this.#getToken,
      token: this.getAttribute("token"),
      endpoint: tokenUrl === null ? null : { url: tokenUrl, csrf },
    };
  }

  #render(): void {
    const state = this.state;
    if (!state) {
      return;
    }
    this.#view ??= new JobView(this.shadowRoot ?? this.attachShadow({ mode: "open" }), () =>
      this.cancel(),
    );
    const status = state.refusal ? "refused" : state.status;
    if (this.getAttribute("status") !== status) {
      this.setAttribute("status", status);
    }
    this.#view.render(state, {
      texts: JobElement.texts,
      locale: localeOf(this),
      label: this.getAttribute("label"),
      showsLog: this.hasAttribute("log"),
      showsCancel: this.hasAttribute("cancellable"),
    });
  }
}

/** Dispatches the events of a job on its element. */
class EventDispatcher implements Follower {
  readonly #element: HTMLElement;
  readonly #job: Job;
  #end: JobComplete | JobError | null = null;

  constructor(element: HTMLElement, job: Job) {
    this.#element = element;
    this.#job = job;
  }

  onEvent(event: JobEvent | JobGap, live: boolean): void {
    if (event.type === "job_complete" || event.type === "job_error") {
      this.#end = event;
      live && this.onCaughtUp();
    } else if (event.type !== "job_gap") {
      this.#dispatch(EVENTS[event.type], event);
    }
  }

  /** An end within the history may be followed by another run. */
  onCaughtUp(): void {
    if (this.#end && this.#job.state.endedAt !== null) {
      this.#dispatch("jobcast:end", this.#end);
      this.#end = null;
    }
  }

  onError({ code, message }: { readonly code: string; readonly message: string }): void {
    this.#dispatch("jobcast:refused", { code, message });
  }

  #dispatch<N extends keyof JobElementEvents>(name: N, detail: JobElementEvents[N]): void {
    this.#element.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
  }
}
