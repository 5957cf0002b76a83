import { type ReactElement, type ReactNode, useId, useLayoutEffect, useRef, useState } from "react";
import { useWidth } from "../lib/useWidth";

interface Props {
  readonly as: "h2" | "p";
  readonly className?: string;
  readonly children: ReactNode;
}

/**
 * The first lines of a long text, with a button that shows the rest. Screen readers get the whole
 * text.
 */
export function Clamped({ as: Tag, className = "", children }: Props): ReactElement {
  const id = useId();
  const box = useRef<HTMLDivElement>(null);
  const [isExpanded, setExpanded] = useState(false);
  const [isTruncated, setTruncated] = useState(false);
  useWidth(box); // another width breaks lines at other places
  useLayoutEffect(() => {
    const text = box.current?.firstElementChild;
    if (text && !isExpanded) {
      setTruncated(text.scrollHeight > text.clientHeight + 1);
    }
  });
  return (
    <div className="clamped" ref={box} data-expanded={isExpanded || undefined}>
      <Tag id={id} className={`clamped-text ${className}`}>
        {children}
      </Tag>
      {isTruncated ? (
        <button
          type="button"
          className="button"
          aria-expanded={isExpanded}
          aria-controls={id}
          onClick={() => setExpanded(!isExpanded)}
        >
          {isExpanded ? "Show less" : "Show the whole text"}
        </button>
      ) : null}
    </div>
  );
}
