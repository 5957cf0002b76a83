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
import type { Target } from "../job/JobPage";
import { download } from "../lib/clipboard";
import { asText, missingOf } from "../lib/logText";
import { type LogFilter, NO_FILTER, placeOf, viewOf } from "../lib/logView";
import { shortId } from "../lib/names";
import { count, plural } from "../lib/numbers";
import { step } from "../lib/search";
import { isShortcut } from "../lib/shortcuts";
import { recall, remember } from "../lib/storage";
import { CopyButton } from "../ui/CopyButton";
import { Icon } from "../ui/Icon";
import { LevelFilter } from "./LevelFilter";
import { LogRows, type LogRowsHandle } from "./LogRows";
import { LogSearch } from "./LogSearch";
import { useLogView } from "./useLogView";

interface Props {
  readonly job: JobState;
  /** A line that somebody wants to see. */
  readonly target: Target | null;
}

const WRAP_KEY = "jobcast.wrap";
const NONE: ReadonlySet<Level> = new Set();

export function LogPanel({ job, target }: Props): ReactElement {
  const [hidden, setHidden] = useState<ReadonlySet<Level>>(NONE);
  const [text, setText] = useState("");
  const [wrap, setWrap] = useState(() => recall(WRAP_KEY) !== false);
  const [current, setCurrent] = useState<number | null>(null); // seq of the line that is looked at
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
  const wanted = useRef<number | null>(null); // seq of a line that is not in view yet
  useEffect(() => {
    if (target) {
      wanted.current = target.seq;
      setHidden((levels) => (levels.size === 0 ? levels : NONE));
      setCurrent(target.seq);
    }
  }, [target]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: a new target, too, is looked for.
  useEffect(() => {
    if (wanted.current !== null && placeOf(view.rows, wanted.current) !== -1) {
      rows.current?.show(wanted.current, true);
      wanted.current = null;
    }
  }, [target, view]);
  useSearchKey(search);

  const at = current ?? 0;
  const go = (by: 1 | -1): void => {
    // Who types fast presses Enter before the view has followed; its rows are the same.
    const { hits } = needle === text ? view : viewOf(job, { hidden, needle: text }, null);
    const next = step(hits, at, by);
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
  const missing = missingOf(job);
  const save = (): void => {
    const whole = viewOf(job, NO_FILTER, null);
    download(`${shortId(job.jobId)}.log`, asText(whole.rows, missing));
  };
  return (
    <section className="panel log-panel" aria-labelledby="log-title">
      <div className="log-bar">
        <h2 id="log-title">
          Log{" "}
          <span className="number faint">
            {isPart ? `${count(view.lines)} of ` : null}
            {plural(logs.length, "line")}
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
            onStep={go}
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
                remember(WRAP_KEY, !wrap);
              }}
            >
              <Icon name="wrap" />
            </button>
            <CopyButton
              small
              label={isPart ? "Copy the lines shown" : "Copy all lines"}
              text={() => asText(view.rows, missing)}
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
      {missing.map((words) => (
        <p key={words} className="log-note">
          {words}
        </p>
      ))}
      <LogRows
        ref={rows}
        view={view}
        wrap={wrap}
        current={current}
        empty={emptyWords(job, hidden.size > 0)}
      />
    </section>
  );
}

function emptyWords(job: JobState, isFiltered: boolean): string {
  if (isFiltered && job.logs.length > 0) {
    return "No line has one of these levels.";
  }
  return job.endedAt === null ? "No line yet." : "It wrote no lines.";
}

/** `/` goes to the search, from wherever one doesn't type. */
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
