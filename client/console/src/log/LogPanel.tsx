import type { JobState, Level } from "@jobcast/client";
import {
  type ReactElement,
  useCallback,
  useDeferredValue,
  useEffect,
  useMemo,
  useRef,
  useState,
} from "react";
import type { LogTarget } from "../job/JobPage";
import { download } from "../lib/clipboard";
import { formatLog, missingLineNotes } from "../lib/formatLog";
import { formatCount, pluralize } from "../lib/formatNumber";
import { shortId } from "../lib/jobNames";
import { buildLogView, findRow, type LogFilter, NO_FILTER } from "../lib/logView";
import { nextHit } from "../lib/search";
import { isShortcut } from "../lib/shortcuts";
import { readStorage, writeStorage } from "../lib/storage";
import { CopyButton } from "../ui/CopyButton";
import { Icon } from "../ui/Icon";
import { LevelFilter } from "./LevelFilter";
import { LogRows, type LogRowsHandle } from "./LogRows";
import { LogSearch } from "./LogSearch";
import { useLogView } from "./useLogView";

interface Props {
  readonly job: JobState;
  /** The line to scroll to. */
  readonly target: LogTarget | null;
}

const WRAP_KEY = "jobcast.wrap";
const NONE: ReadonlySet<Level> = new Set();

export function LogPanel({ job, target }: Props): ReactElement {
  const [hidden, setHidden] = useState<ReadonlySet<Level>>(NONE);
  const [text, setText] = useState("");
  const [wrap, setWrap] = useState(() => readStorage(WRAP_KEY) !== false);
  const [current, setCurrent] = useState<number | null>(null); // seq of the current line
  const needle = useDeferredValue(text);
  const filter = useMemo<LogFilter>(() => ({ hidden, needle }), [hidden, needle]);
  const view = useLogView(job, filter);
  const rows = useRef<LogRowsHandle>(null);
  const search = useRef<HTMLInputElement>(null);
  const { logs } = job;

  const show = useCallback((seq: number) => {
    setCurrent(seq);
    rows.current?.show(seq);
  }, []);
  const wanted = useRef<number | null>(null); // seq of a line to scroll to when it is rendered
  useEffect(() => {
    if (target) {
      wanted.current = target.seq;
      setHidden((levels) => (levels.size === 0 ? levels : NONE));
      setCurrent(target.seq);
    }
  }, [target]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: a new target triggers it too.
  useEffect(() => {
    if (wanted.current !== null && findRow(view.rows, wanted.current) !== -1) {
      rows.current?.show(wanted.current, true);
      wanted.current = null;
    }
  }, [target, view]);
  useSearchKey(search);

  const at = current ?? 0;
  const goToHit = (by: 1 | -1): void => {
    // Enter may arrive before the deferred view; compute the hits of the current text.
    const { hits } = needle === text ? view : buildLogView(job, { hidden, needle: text }, null);
    const next = nextHit(hits, at, by);
    if (next !== null) {
      show(next);
    }
  };
  const toggle = (level: Level): void => {
    const next = new Set(hidden);
    if (!next.delete(level)) {
      next.add(level);
    }
    setHidden(next);
  };
  const isPart = view.lines < logs.length;
  const notes = missingLineNotes(job);
  const save = (): void => {
    const whole = buildLogView(job, NO_FILTER, null);
    download(`${shortId(job.jobId)}.log`, formatLog(whole.rows, notes));
  };
  return (
    <section className="panel log-panel" aria-labelledby="log-title">
      <div className="log-bar">
        <h2 id="log-title">
          Log{" "}
          <span className="number faint">
            {isPart ? `${formatCount(view.lines)} of ` : null}
            {pluralize(logs.length, "line")}
          </span>
        </h2>
        <LevelFilter counts={view.counts} hidden={hidden} onToggle={toggle} />
        <div className="log-tools">
          <LogSearch
            input={search}
            text={text}
            hits={view.hits.length}
            at={view.hits.indexOf(at) + 1}
            onText={setText}
            onStep={goToHit}
            onLeave={() => rows.current?.focus()}
          />
          <div className="log-actions">
            <button
              type="button"
              className="button icon-only"
              aria-pressed={wrap}
              aria-label="Wrap long lines"
              title="Wrap long lines"
              onClick={() => {
                setWrap(!wrap);
                writeStorage(WRAP_KEY, !wrap);
              }}
            >
              <Icon name="wrap" />
            </button>
            <CopyButton
              small
              label={isPart ? "Copy the lines shown" : "Copy all lines"}
              text={() => formatLog(view.rows, notes)}
            />
            <button
              type="button"
              className="button icon-only"
              aria-label="Download the log"
              title="Download the log"
              onClick={save}
            >
              <Icon name="download" />
            </button>
          </div>
        </div>
      </div>
      {notes.map((note) => (
        <p key={note} className="log-note">
          {note}
        </p>
      ))}
      <LogRows
        ref={rows}
        view={view}
        wrap={wrap}
        current={current}
        empty={emptyText(job, hidden.size > 0)}
      />
    </section>
  );
}

function emptyText(job: JobState, isFiltered: boolean): string {
  if (isFiltered && job.logs.length > 0) {
    return "No lines with the selected levels.";
  }
  return job.endedAt === null ? "No lines yet." : "The job wrote no log lines.";
}

/** The key `/` moves the focus to the search field, except while the user types. */
function useSearchKey(input: { readonly current: HTMLInputElement | null }): void {
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      if (event.key === "/" && isShortcut(event)) {
        event.preventDefault();
        input.current?.focus();
        input.current?.select();
      }
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, [input]);
}
