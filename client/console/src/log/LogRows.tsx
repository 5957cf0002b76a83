import { useVirtualizer } from "@tanstack/react-virtual";
import {
  type ReactElement,
  type Ref,
  useCallback,
  useImperativeHandle,
  useLayoutEffect,
  useRef,
  useState,
} from "react";
import { countUpTo, type LogView, placeOf } from "../lib/logView";
import { plural } from "../lib/numbers";
import { Icon } from "../ui/Icon";
import { LogRowView } from "./LogRowView";

export interface LogRowsHandle {
  /** Scrolls a line into view, and with `focus` goes there. */
  show(seq: number, focus?: boolean): void;
  focus(): void;
}

interface Props {
  readonly ref: Ref<LogRowsHandle>;
  readonly view: LogView;
  readonly wrap: boolean;
  readonly current: number | null;
  /** What to say when there is nothing. */
  readonly empty: string;
}

const ROW = 22; // px of a line that is not wrapped
const OVERSCAN = 12; // rows
const AT_END = 8; // px from the end that still count as the end

/** The lines that are in view, of however many. Follows the end until somebody scrolls up. */
export function LogRows({ ref, view, wrap, current, empty }: Props): ReactElement {
  const { rows, filter } = view;
  const box = useRef<HTMLDivElement>(null);
  const [follows, setFollows] = useState(true);
  const [left, setLeft] = useState(0); // seq of the last row when the end was left
  const top = useRef(0);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => box.current,
    estimateSize: () => ROW,
    getItemKey: useCallback((index: number) => rows[index]?.seq ?? index, [rows]),
    overscan: OVERSCAN,
    // What somebody reads stays in its place when lines before it fall out.
    anchorTo: follows ? "start" : "end",
  });
  const height = virtual.getTotalSize();

  // Heights are known only once rows are drawn: whatever makes the log longer, its end stays in view.
  useLayoutEffect(() => {
    const element = box.current;
    if (follows && element && height > 0) {
      element.scrollTop = element.scrollHeight;
      top.current = element.scrollTop;
    }
  }, [follows, height]);

  const leaveEnd = (): void => {
    if (follows) {
      setFollows(false);
      setLeft(rows.at(-1)?.seq ?? 0);
    }
  };
  const scrolled = (): void => {
    const element = box.current;
    if (!element) {
      return;
    }
    const { scrollTop, clientHeight, scrollHeight } = element;
    const wentUp = scrollTop < top.current - 1;
    top.current = scrollTop;
    if (scrollHeight - clientHeight - scrollTop <= AT_END) {
      setFollows(true);
    } else if (wentUp) {
      leaveEnd();
    }
  };
  useImperativeHandle(ref, () => ({
    show(seq, focus = false) {
      const place = placeOf(rows, seq);
      if (place !== -1) {
        leaveEnd();
        virtual.scrollToIndex(place, { align: "center" });
      }
      box.current?.scrollIntoView({ block: "nearest" });
      if (focus) {
        box.current?.focus({ preventScroll: true });
      }
    },
    focus: () => box.current?.focus({ preventScroll: true }),
  }));

  const fresh = rows.length - countUpTo(rows, left);
  return (
    <div className="log-frame">
      <div
        ref={box}
        className="log"
        role="log"
        aria-live="off"
        aria-label="Log lines"
        data-wrap={wrap || undefined}
        data-follows={follows || undefined}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: who has no mouse scrolls it by keys.
        tabIndex={0}
        onScroll={scrolled}
      >
        {rows.length === 0 ? (
          <p className="empty">{empty}</p>
        ) : (
          <div className="log-lines" style={{ height }}>
            {virtual.getVirtualItems().map(({ index, key, start }) => {
              const row = rows[index];
              return row ? (
                <div
                  key={key}
                  ref={virtual.measureElement}
                  data-index={index}
                  className="log-place"
                  style={{ transform: `translateY(${start}px)` }}
                >
                  <LogRowView row={row} needle={filter.needle} isCurrent={row.seq === current} />
                </div>
              ) : null;
            })}
          </div>
        )}
      </div>
      {follows || rows.length === 0 ? null : (
        <button type="button" className="button to-end" onClick={() => setFollows(true)}>
          <Icon name="down" />
          {fresh > 0 ? `${plural(fresh, "new line")}, jump to the end` : "Jump to the end"}
        </button>
      )}
    </div>
  );
}
