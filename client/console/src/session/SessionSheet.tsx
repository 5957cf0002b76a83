import { type ReactElement, type ReactNode, useEffect, useRef } from "react";
import { ThemeButton } from "../ui/ThemeButton";
import { Wordmark } from "../ui/Wordmark";

interface Props {
  readonly title: string;
  readonly heading: string;
  /** Whether a session has just ended. */
  readonly expired: boolean;
  readonly children: ReactNode;
}

/** The frame of the pages that are shown without a session. */
export function SessionSheet({ title, heading, expired, children }: Props): ReactElement {
  const top = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} · jobcast`;
    if (expired) {
      top.current?.focus(); // the previously focused element is gone
    }
  }, [title, expired]);
  return (
    <main className="sheet">
      <div className="sheet-top">
        <Wordmark />
        <ThemeButton />
      </div>
      <h1 ref={top} tabIndex={-1}>
        {heading}
      </h1>
      {children}
    </main>
  );
}
