/** Defines the element `<jobcast-job>`. */

import { JobElement, type JobElementEvents, TAG } from "./element/jobElement.js";

export type { Texts } from "./element/texts.js";
export type { JobState } from "./job.js";
export { JobElement, type JobElementEvents };

// A page may load the script twice: from a template, and from a fragment.
if (globalThis.customElements && !customElements.get(TAG)) {
  customElements.define(TAG, JobElement);
}

declare global {
  interface HTMLElementTagNameMap {
    "jobcast-job": JobElement;
  }
}
