/** What came from elsewhere, looked at with care. */

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function textOf(value: unknown, key: string): string | null {
  const text = isRecord(value) ? value[key] : null;
  return typeof text === "string" ? text : null;
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
