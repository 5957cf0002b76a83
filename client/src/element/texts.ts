/** The texts of the element. `JobElement.texts` replaces them, for example with a translation. */
export interface Texts {
  /** The accessible name of the bar, unless the element has a `label`. */
  label: string;
  log: string;
  timeLeft: string;
  duration: string;
  connecting: string;
  reconnecting: string;
  pending: string;
  queued: string;
  started: string;
  retrying: string;
  stalled: string;
  cancelling: string;
  complete: string;
  error: string;
  cancelled: string;
  gap: string;
  /** The button, with the attribute `cancellable`. */
  cancel: string;
  cancelQuestion: string;
  cancelYes: string;
  cancelNo: string;
  cancelRefused: string;
  signedOut: string;
  notFound: string;
}

export const TEXTS: Texts = {
  label: "Progress",
  log: "Log",
  timeLeft: "{time} left",
  duration: "took {time}",
  connecting: "Connecting…",
  reconnecting: "Reconnecting…",
  pending: "Waiting for the job…",
  queued: "Queued",
  started: "Running",
  retrying: "Waiting for another attempt",
  stalled: "The worker does not respond",
  cancelling: "Cancelling…",
  complete: "Done",
  error: "Failed",
  cancelled: "Cancelled",
  gap: "The server no longer stores some of the lines.",
  cancel: "Cancel",
  cancelQuestion: "Cancel this job?",
  cancelYes: "Cancel the job",
  cancelNo: "Keep it running",
  cancelRefused: "The job could not be cancelled: {reason}",
  signedOut: "Sign in to see this job.",
  notFound: "This job does not exist, or you may not see it.",
};

const UNITS: readonly (readonly [string, number])[] = [
  ["hour", 3600],
  ["minute", 60],
  ["second", 1],
];

/** Return a duration in its largest two units, as in "1 hr 5 min". */
export function formatDuration(seconds: number, locale: string | undefined): string {
  let rest = Math.max(0, Math.round(seconds));
  const parts: string[] = [];
  for (const [unit, length] of UNITS) {
    const count = Math.floor(rest / length);
    const isLast = unit === "second" && parts.length === 0;
    if (parts.length < 2 && (count > 0 || isLast)) {
      parts.push(formatUnit(count, unit, locale));
    }
    rest %= length;
  }
  return parts.join(" ");
}

export function formatPercentage(percentage: number, locale: string | undefined): string {
  return numberFormat(locale, { style: "percent" }).format(Math.floor(percentage) / 100);
}

/** Return the language tag of an element's text, if the browser knows it. */
export function localeOf(element: Element): string | undefined {
  const lang = element.closest("[lang]")?.getAttribute("lang") ?? "";
  try {
    return Intl.getCanonicalLocales(lang || [])[0];
  } catch {
    return undefined; // the page has an invalid tag
  }
}

function formatUnit(count: number, unit: string, locale: string | undefined): string {
  return numberFormat(locale, { style: "unit", unit, unitDisplay: "short" }).format(count);
}

const formats = new Map<string, Intl.NumberFormat>();

/** A format takes long to create, and each element needs it for each frame. */
function numberFormat(
  locale: string | undefined,
  options: Intl.NumberFormatOptions,
): Intl.NumberFormat {
  const key = `${locale} ${options.unit ?? options.style}`;
  const format = formats.get(key) ?? new Intl.NumberFormat(locale, options);
  formats.set(key, format);
  return format;
}
