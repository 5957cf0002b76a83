import { describe, expect, it } from "vitest";
import { sanitizeText } from "../src/lib/sanitizeText";

describe("sanitizeText", () => {
  it.each([
    ["plain text, ünïcödé, 日本語 🎉\tand tabs", "plain text, ünïcödé, 日本語 🎉\tand tabs"],
    ["\u001b[1;31mred\u001b[0m", "red"],
    ["\u009b31mred", "red"],
    ["\u001b]0;owned\u0007title", "title"],
    ["\u001b]52;c;cm0gLXJm\u001b\\clipboard", "clipboard"],
    ["\u001b\u001b[0m[31m", " [31m"],
    ["\u001b]0;no end", " ]0;no end"],
    ["user\u202etxt.exe", "user txt.exe"],
    ["bell\u0007 delete\u007f", "bell  delete "],
    ["one\ntwo\r\nthree", "one\n    two\n    three"],
    [
      "one\u20282026-01-15T09:30:02.000Z INFO forged",
      "one\n    2026-01-15T09:30:02.000Z INFO forged",
    ],
    ["half \ud800 pair", "half   pair"],
  ])("cleans %j", (text, cleaned) => {
    expect(sanitizeText(text)).toBe(cleaned);
  });
});
