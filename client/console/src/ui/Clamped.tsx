import { type ReactElement, type ReactNode, useId, useLayoutEffect, useRef, useState } from "react";
import { useWidth } from "../lib/useWidth";

interface Props {
  readonly as: "h2" | "p";
  readonly className?: string;
  readonly children: ReactNode;
}

/**
 * The first lines of a text that may be long, and what shows the rest. To screen readers it is
 * whole.
 */
export function Clamped({ as: Tag, className = "", children }: Props): ReactElement {
  const id = useId();
  const box = useRef<HTMLDivElement>(null);
  const [isWhole, setWhole] = useState(false);
  const [isCut, setCut] = useState(false);
  useWidth(box); // another width breaks the lines elsewhere
  useLayoutEffect(() => {
    const text = box.current?.firstElementChild;
    if (text && !isWhole) {
      setCut(text.scrollHeight > text.clientHeight + 1);
    }
  });
  return (
    <div className="clamped" ref={box} data-whole={isWhole || undefined}>
      <Tag id={id} className={`clamped-text ${className}`}>
        {children}
      </Tag>
      {isCut ? (
        <button
          type="button"
          className="button"
          aria-expanded={isWhole}
          aria-controls={id}
          onClick={() => setWhole(!isWhole)}
        >
          {isWhole ? "Show less" : "Show the whole text"}
        </button>
      ) : null}
    </div>
  );
}
