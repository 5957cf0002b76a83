import { useConnection } from "@jobcast/client/react";
import {
  type ReactElement,
  type ReactNode,
  useCallback,
  useEffect,
  useMemo,
  useState,
} from "react";
import { isShortcut } from "../lib/shortcuts";
import { CancelDialog } from "./CancelDialog";
import { CancelContext, type CancelTarget } from "./cancelContext";

/** Ask about one job at a time, in a dialog, for the buttons within. */
export function CancelProvider({ children }: { readonly children: ReactNode }): ReactElement {
  const { features } = useConnection();
  const [target, setTarget] = useState<CancelTarget | null>(null);
  const isOffered = features?.includes("cancel_job") ?? false;
  const value = useMemo(() => ({ isOffered, ask: setTarget }), [isOffered]);
  const close = useCallback(() => setTarget(null), []);
  useCancelKey();
  return (
    <CancelContext value={value}>
      {children}
      {target === null ? null : <CancelDialog target={target} onClose={close} />}
    </CancelContext>
  );
}

/** The key `c` presses the button of the focused row, or else that of the open job. */
function useCancelKey(): void {
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      if (event.key !== "c" || !isShortcut(event) || document.querySelector("dialog[open]")) {
        return;
      }
      const row = document.activeElement?.closest(".row") ?? document.querySelector("article.job");
      const button = row?.querySelector<HTMLElement>("[data-action='cancel']");
      if (button) {
        event.preventDefault();
        button.click();
      }
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, []);
}
