/**
 * The style of the element. Text and track follow the colour of the page's text, so they fit light and
 * dark pages. `light-dark()` follows the page's `color-scheme`.
 */
export const STYLES = `
:host {
  --accent: var(--jobcast-accent, #00796b);
  --danger: var(--jobcast-danger, #c62828);
  --muted: var(--jobcast-muted, color-mix(in srgb, currentColor 75%, transparent));
  --track: var(--jobcast-track, color-mix(in srgb, currentColor 18%, transparent));
  display: block;
  font: var(--jobcast-font, inherit);
  color: var(--jobcast-color, inherit);
  overflow-wrap: anywhere;
}
@supports (color: light-dark(black, white)) {
  :host {
    --accent: var(--jobcast-accent, light-dark(#00796b, #4db6ac));
    --danger: var(--jobcast-danger, light-dark(#b3261e, #ff9a92));
  }
}
:host([hidden]), [hidden] { display: none !important; }
.row { display: flex; flex-wrap: wrap; gap: 0 1em; justify-content: space-between; }
[part="title"] { font-weight: bold; }
[part="bar"] {
  height: var(--jobcast-height, 0.5em);
  margin: 0.35em 0;
  border-radius: var(--jobcast-radius, 1em);
  background: var(--track);
  overflow: hidden;
}
[part="fill"] {
  width: 0;
  height: 100%;
  border-radius: inherit;
  background: var(--accent);
  transition: width 0.2s linear;
}
:host([status="error"]) [part="fill"] { background: var(--danger); }
:host([status="cancelled"]) [part="fill"] {
  background: color-mix(in srgb, currentColor 60%, transparent);
}
.unknown [part="fill"] { width: 30%; animation: move 1.6s ease-in-out infinite alternate; }
/* Texts of the job may have another direction than the page. */
[part="message"], [part="error"], [part~="line"] { unicode-bidi: plaintext; }
[part="percentage"], [part="time"] { font-variant-numeric: tabular-nums; }
[part="time"] { color: var(--muted); font-size: 0.875em; }
[part="error"] {
  margin: 0.35em 0 0;
  padding-inline-start: 0.6em;
  border-inline-start: 0.2em solid var(--danger);
  color: var(--danger);
  white-space: pre-line;
  text-align: -webkit-match-parent;
  text-align: match-parent; /* at the side of the border */
}
[part="log"] {
  max-height: var(--jobcast-log-height, 12em);
  margin: 0.5em 0 0;
  overflow: auto;
  font-family: var(--jobcast-log-font, ui-monospace, monospace);
  font-size: 0.875em;
  white-space: pre-wrap;
}
[part="cancel"] { margin-top: 0.5em; }
[part="cancel-confirmation"] { display: flex; flex-wrap: wrap; gap: 0.5em; align-items: center; }
[part~="button"] {
  padding: 0.3em 0.9em;
  font: inherit;
  color: inherit;
  background: transparent;
  border: 1px solid color-mix(in srgb, currentColor 45%, transparent);
  border-radius: 0.4em;
  cursor: pointer;
}
[part~="button"]:hover { background: var(--track); }
[part~="button"]:disabled { opacity: 0.6; cursor: default; }
[part~="cancel-yes"] { color: var(--danger); }
[part~="button"]:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
[part="cancel-problem"] { margin: 0.35em 0 0; color: var(--danger); }
[part="log"]:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
[part~="line-warning"] { font-weight: bold; }
[part~="line-error"], [part~="line-critical"] { color: var(--danger); }
.live {
  position: absolute;
  width: 1px;
  height: 1px;
  overflow: hidden;
  clip-path: inset(50%);
  white-space: nowrap;
}
@keyframes move { from { margin-inline-start: 0; } to { margin-inline-start: 70%; } }
@media (prefers-reduced-motion: reduce) {
  [part="fill"] { transition: none; }
  .unknown [part="fill"] { width: 100%; opacity: 0.5; animation: none; }
}
@media (forced-colors: active) {
  [part="bar"] { border: 1px solid CanvasText; background: Canvas; }
  [part="fill"], :host([status="error"]) [part="fill"],
  :host([status="cancelled"]) [part="fill"] {
    background: Highlight;
    forced-color-adjust: none;
  }
}
`;
