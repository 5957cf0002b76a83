/** The icon of the tab: a job's progress as a ring, or a dot for a list with stuck jobs. */

import type { Tone } from "./statusBadge";

export interface FaviconState {
  readonly tone: Tone;
  /** The length of the ring; null for a dot on the page's own icon. */
  readonly percentage: number | null;
}

const STEP = 5; // percent; browsers need a while for each new icon
const COLORS: Record<Tone, string> = {
  quiet: "#949cab",
  active: "#4a74f0",
  warn: "#d98a0b",
  good: "#1f9d5c",
  bad: "#d63a35",
};

const OWN_ICON = "./favicon.svg"; // the page loads it with its markup

let shown = OWN_ICON;

/** Show a state in the icon of the tab; null for the page's own icon. */
export function setFavicon(state: FaviconState | null): void {
  const icon = document.querySelector<HTMLLinkElement>('link[rel="icon"]');
  const href = state === null ? OWN_ICON : dataUrl(faviconSvg(state));
  if (icon && href !== shown) {
    shown = href;
    icon.href = href;
  }
}

/** Return the icon of a state as SVG. */
export function faviconSvg({ tone, percentage }: FaviconState): string {
  const color = COLORS[tone];
  const shapes = percentage === null ? dot(color) : ring(color, percentage);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">${shapes}</svg>`;
}

function ring(color: string, percentage: number): string {
  const length = Math.floor(percentage / STEP) * STEP;
  const circle = `<circle cx="16" cy="16" r="12" fill="none" stroke-width="7"`;
  return (
    `${circle} stroke="${color}" stroke-opacity=".25"/>` +
    `${circle} stroke="${color}" pathLength="100" stroke-dasharray="${length} 100"` +
    ' transform="rotate(-90 16 16)"/>'
  );
}

function dot(color: string): string {
  return (
    '<rect width="32" height="32" rx="8" fill="#3a4be0"/>' +
    '<path d="M8 22h7M8 16h12M8 10h16" stroke="#fff" stroke-linecap="round" stroke-width="3.2"/>' +
    `<circle cx="23" cy="23" r="8" fill="${color}" stroke="#fff" stroke-width="2"/>`
  );
}

function dataUrl(svg: string): string {
  return `data:image/svg+xml,${encodeURIComponent(svg)}`;
}
