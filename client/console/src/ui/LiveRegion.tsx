import type { ReactElement } from "react";
import { liveText } from "../lib/liveRegion";
import { useStore } from "../lib/useStore";

export function LiveRegion(): ReactElement {
  return (
    <div className="visually-hidden" role="status" aria-live="polite" aria-label="Announcements">
      {useStore(liveText)}
    </div>
  );
}
