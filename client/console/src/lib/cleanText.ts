/** Sequences of ECMA-48, with the seven-bit and the eight-bit form of their introducers. */
const ESCAPE_SEQUENCE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what has to go.
  /(?:\u001b\[|\u009b)[0-?]*[ -/]*[@-~]|(?:\u001b[\]PX^_]|[\u0090\u0098\u009d-\u009f])[^\u0007\u001b\u009c]*(?:\u0007|\u001b\\|\u009c)|\u001b[ -/]*[0-Z\\^-~]/g;
const LINE_BREAK = /\r\n|[\n\r\v\f\u0085\u2028\u2029]/;
/** Controls but tabs, and what changes the direction of text or has no width. */
const UNPRINTABLE = /[^\P{Cc}\t]|\p{Cf}|\p{Cs}/gu;
/** No line of a log begins with it: a text cannot forge one. */
const CONTINUATION = "\n    ";

/**
 * A text as a file and the clipboard get it: a terminal that shows it obeys nothing in it, and its
 * further lines are indented. Pages show texts as they are.
 */
export function cleanText(text: string): string {
  return text
    .split(LINE_BREAK)
    .map((line) => line.replace(ESCAPE_SEQUENCE, "").replace(UNPRINTABLE, " "))
    .join(CONTINUATION);
}
