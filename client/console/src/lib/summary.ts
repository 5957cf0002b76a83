/** A result in a few words: `imported 19,994 · rejected 6`. */

import { count } from "./numbers";

const FIELDS = 3;
const LENGTH = 24; // characters of a text

/** Null for what needs to be looked at. */
export function summaryOf(result: unknown): string | null {
  if (typeof result === "string" || typeof result === "number" || typeof result === "boolean") {
    return short(result);
  }
  if (typeof result !== "object" || result === null || Array.isArray(result)) {
    return null;
  }
  const omitted = omittedOf(result);
  if (omitted !== null) {
    return omitted;
  }
  const parts = Object.entries(result).flatMap(([key, value]) => {
    const text = short(value);
    return text === null ? [] : [`${key.replaceAll("_", " ")} ${text}`];
  });
  return parts.length === 0 ? null : parts.slice(0, FIELDS).join(" · ");
}

/** Why a result was not sent, in words; null for one that was. */
export function omittedOf(result: unknown): string | null {
  if (typeof result !== "object" || result === null || !("omitted" in result)) {
    return null;
  }
  const { omitted, type, bytes, limit } = result as Record<string, unknown>;
  const kind = typeof type === "string" ? ` (${type})` : "";
  if (omitted === "too_large") {
    const size =
      typeof bytes === "number" && typeof limit === "number"
        ? `: it has ${count(bytes)} bytes, and ${count(limit)} are sent at most`
        : "";
    return `The result${kind} is too large to be shown${size}.`;
  }
  return omitted === "unserializable"
    ? `The result${kind} is nothing that can be shown as JSON.`
    : null;
}

function short(value: unknown): string | null {
  if (typeof value === "number") {
    return count(value);
  }
  if (typeof value === "boolean") {
    return value ? "yes" : "no";
  }
  if (typeof value !== "string") {
    return null;
  }
  return value.length > LENGTH ? `${value.slice(0, LENGTH - 1)}…` : value;
}
