/** Formatting of numbers. */

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const LARGE = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

/** Format a number: `19,994`. */
export function formatCount(value: number): string {
  return (Number.isInteger(value) ? WHOLE : SHORT).format(value);
}

/** Format items per second: `2.5/s`, `12,345/s`, `208M/s`. */
export function formatRate(value: number): string {
  if (value >= 1_000_000) {
    return `${LARGE.format(value)}/s`;
  }
  return `${(value < 10 ? SHORT : WHOLE).format(value)}/s`;
}

/** Format a percentage: `62%`. It rounds down, so that only a finished job shows 100%. */
export function formatPercent(value: number): string {
  return `${Math.floor(value)}%`;
}

/** Format a count with its noun: `1 line`, `2 lines`. */
export function pluralize(number: number, noun: string, nouns = `${noun}s`): string {
  return `${formatCount(number)} ${number === 1 ? noun : nouns}`;
}

/** Format a size: `812 bytes`, `3.1 MB`. */
export function formatBytes(value: number): string {
  if (value < 1000) {
    return pluralize(value, "byte");
  }
  return value < 1_000_000 ? `${SHORT.format(value / 1000)} kB` : `${SHORT.format(value / 1e6)} MB`;
}

export function upperFirst(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
