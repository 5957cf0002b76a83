/** Short summaries of results: `imported 19,994 · rejected 6`. */

import { formatCount } from "./formatNumber";

const FIELDS = 3;
const LENGTH = 24; // characters of a text

/** Return a summary, or null if the result is too complex for one. */
export function summarizeResult(result: unknown): string | null {
  if (typeof result === "string" || typeof result === "number" || typeof result === "boolean") {
    return short(result);
  }
  if (typeof result !== "object" || result === null || Array.isArray(result)) {
    return null;
  }
  const omitted = omissionText(result);
  if (omitted !== null) {
    return omitted;
  }
  const parts = Object.entries(result).flatMap(([key, value]) => {
    const text = short(value);
    return text === null ? [] : [`${key.replaceAll("_", " ")} ${text}`];
  });
  return parts.length === 0 ? null : parts.slice(0, FIELDS).join(" · ");
}

/** Return why a result was omitted; null if it was not. */
export function omissionText(result: unknown): string | null {
  if (typeof result !== "object" || result === null || !("omitted" in result)) {
    return null;
  }
  const { omitted, type, bytes, limit } = result as Record<string, unknown>;
  const kind = typeof type === "string" ? ` (${type})` : "";
  if (omitted === "too_large") {
    const size =
      typeof bytes === "number" && typeof limit === "number"
        ? `: it has ${formatCount(bytes)} bytes, and the limit is ${formatCount(limit)}`
        : "";
    return `The result${kind} is too large to show${size}.`;
  }
  return omitted === "unserializable" ? `The result${kind} cannot be shown as JSON.` : null;
}

function short(value: unknown): string | null {
  if (typeof value === "number") {
    return formatCount(value);
  }
  if (typeof value === "boolean") {
    return value ? "yes" : "no";
  }
  if (typeof value !== "string") {
    return null;
  }
  return value.length > LENGTH ? `${value.slice(0, LENGTH - 1)}…` : value;
}
