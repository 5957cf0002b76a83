/** Numbers for people. */

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const LARGE = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

/** `19,994` */
export function count(value: number): string {
  return (Number.isInteger(value) ? WHOLE : SHORT).format(value);
}

/** Items a second: `2.5/s`, `12,345/s`, `208M/s`. */
export function rate(value: number): string {
  if (value >= 1_000_000) {
    return `${LARGE.format(value)}/s`;
  }
  return `${(value < 10 ? SHORT : WHOLE).format(value)}/s`;
}

/** `62%`: never 100% of what isn't done. */
export function percent(value: number): string {
  return `${Math.floor(value)}%`;
}

/** `1 line`, `2 lines`. */
export function plural(number: number, noun: string, nouns = `${noun}s`): string {
  return `${count(number)} ${number === 1 ? noun : nouns}`;
}

/** Of bytes: `812 bytes`, `3.1 MB`. */
export function bytes(value: number): string {
  if (value < 1000) {
    return plural(value, "byte");
  }
  return value < 1_000_000 ? `${SHORT.format(value / 1000)} kB` : `${SHORT.format(value / 1e6)} MB`;
}

export function upperFirst(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
