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
import { pluralize } from "../lib/formatNumber";
import { countUpTo, findRow, type LogView } from "../lib/logView";
import { Icon } from "../ui/Icon";
import { LogRowView } from "./LogRowView";

export interface LogRowsHandle {
  /** Scroll to a line, and focus the log if `focus` is set. */
  show(seq: number, focus?: boolean): void;
  focus(): void;
}

interface Props {
  readonly ref: Ref<LogRowsHandle>;
  readonly view: LogView;
  readonly wrap: boolean;
  readonly current: number | null;
  /** The text to show without rows. */
  readonly empty: string;
}

const ROW_HEIGHT = 22; // px; the height of an unwrapped line
const OVERSCAN = 12; // rows
const END_TOLERANCE = 8; // px; a position this close to the end counts as the end

/** A virtual list of log rows. It follows the end until the user scrolls up. */
export function LogRows({ ref, view, wrap, current, empty }: Props): ReactElement {
  const { rows, filter } = view;
  const box = useRef<HTMLDivElement>(null);
  const [followsEnd, setFollowsEnd] = useState(true);
  const [lastSeenSeq, setLastSeenSeq] = useState(0); // seq of the last row when the user scrolled up
  const top = useRef(0);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => box.current,
    estimateSize: () => ROW_HEIGHT,
    getItemKey: useCallback((index: number) => rows[index]?.seq ?? index, [rows]),
    overscan: OVERSCAN,
    // The visible lines keep their position when older lines are dropped.
    anchorTo: followsEnd ? "start" : "end",
  });
  const height = virtual.getTotalSize();

  // Rows get their final height only when they are drawn, so scroll again whenever the height changes.
  useLayoutEffect(() => {
    const element = box.current;
    if (followsEnd && element && height > 0) {
      element.scrollTop = element.scrollHeight;
      top.current = element.scrollTop;
    }
  }, [followsEnd, height]);

  const stopFollowing = (): void => {
    if (followsEnd) {
      setFollowsEnd(false);
      setLastSeenSeq(rows.at(-1)?.seq ?? 0);
    }
  };
  const onScroll = (): void => {
    const element = box.current;
    if (!element) {
      return;
    }
    const { scrollTop, clientHeight, scrollHeight } = element;
    const wentUp = scrollTop < top.current - 1;
    top.current = scrollTop;
    if (scrollHeight - clientHeight - scrollTop <= END_TOLERANCE) {
      setFollowsEnd(true);
    } else if (wentUp) {
      stopFollowing();
    }
  };
  useImperativeHandle(ref, () => ({
    show(seq, focus = false) {
      const index = findRow(rows, seq);
      if (index !== -1) {
        stopFollowing();
        virtual.scrollToIndex(index, { align: "center" });
      }
      box.current?.scrollIntoView({ block: "nearest" });
      if (focus) {
        box.current?.focus({ preventScroll: true });
      }
    },
    focus: () => box.current?.focus({ preventScroll: true }),
  }));

  const newRows = rows.length - countUpTo(rows, lastSeenSeq);
  return (
    <div className="log-frame">
      <div
        ref={box}
        className="log"
        role="log"
        aria-live="off"
        aria-label="Log lines"
        data-wrap={wrap || undefined}
        data-at-end={followsEnd || undefined}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: keyboard users scroll it.
        tabIndex={0}
        onScroll={onScroll}
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
                  className="log-row"
                  style={{ transform: `translateY(${start}px)` }}
                >
                  <LogRowView row={row} needle={filter.needle} isCurrent={row.seq === current} />
                </div>
              ) : null;
            })}
          </div>
        )}
      </div>
      {followsEnd || rows.length === 0 ? null : (
        <button type="button" className="button to-end" onClick={() => setFollowsEnd(true)}>
          <Icon name="down" />
          {newRows > 0 ? `${pluralize(newRows, "new line")}, jump to the end` : "Jump to the end"}
        </button>
      )}
    </div>
  );
}
