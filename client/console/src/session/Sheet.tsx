import { type ReactElement, type ReactNode, useEffect, useRef } from "react";
import { ThemeButton } from "../ui/ThemeButton";
import { Wordmark } from "../ui/Wordmark";

interface Props {
  readonly title: string;
  readonly heading: string;
  /** Whether there was a session until now. */
  readonly expired: boolean;
  readonly children: ReactNode;
}

/** The page while nobody is signed in. */
export function Sheet({ title, heading, expired, children }: Props): ReactElement {
  const top = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} · jobcast`;
    if (expired) {
      top.current?.focus(); // what was here before is gone
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
