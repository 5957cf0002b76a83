import type { ReactElement } from "react";
import { setTheme, type Theme, theme } from "../lib/theme";
import { useStore } from "../lib/useStore";
import { Icon, type IconName } from "./Icon";

const NEXT: Record<Theme, Theme> = { system: "light", light: "dark", dark: "system" };
const ICONS: Record<Theme, IconName> = { system: "system", light: "sun", dark: "moon" };
const LABELS: Record<Theme, string> = { system: "system", light: "light", dark: "dark" };

export function ThemeButton(): ReactElement {
  const chosen = useStore(theme);
  const label = `Theme: ${LABELS[chosen]}. Change to ${LABELS[NEXT[chosen]]}`;
  return (
    <button
      type="button"
      className="button icon-only bare"
      aria-label={label}
      title={label}
      onClick={() => setTheme(NEXT[chosen])}
    >
      <Icon name={ICONS[chosen]} />
    </button>
  );
}
