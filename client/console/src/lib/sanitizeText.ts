/** The escape sequences of ECMA-48, with seven-bit and eight-bit introducers. */
const ESCAPE_SEQUENCE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these characters are to be removed.
  /(?:\u001b\[|\u009b)[0-?]*[ -/]*[@-~]|(?:\u001b[\]PX^_]|[\u0090\u0098\u009d-\u009f])[^\u0007\u001b\u009c]*(?:\u0007|\u001b\\|\u009c)|\u001b[ -/]*[0-Z\\^-~]/g;
const LINE_BREAK = /\r\n|[\n\r\v\f\u0085\u2028\u2029]/;
/** Control characters except tabs, and characters that change the text direction or have no width. */
const UNPRINTABLE = /[^\P{Cc}\t]|\p{Cf}|\p{Cs}/gu;
/** The indentation of continuation lines. No log line starts with it, so a text cannot forge one. */
const CONTINUATION = "\n    ";

/**
 * Prepare a text for a file or the clipboard. Escape sequences are removed, so that a terminal shows
 * the text safely, and continuation lines are indented. The page itself shows texts unchanged.
 */
export function sanitizeText(text: string): string {
  return text
    .split(LINE_BREAK)
    .map((line) => line.replace(ESCAPE_SEQUENCE, "").replace(UNPRINTABLE, " "))
    .join(CONTINUATION);
}
