import type { JobSummary } from "@jobcast/client";
import { type KeyboardEvent, type ReactElement, useEffect, useRef } from "react";
import { jobHash, parseRoute } from "../lib/route";
import { isShortcut, shortcuts } from "../lib/shortcuts";
import { changeView } from "../lib/useRoute";
import { useStore } from "../lib/useStore";
import { Icon } from "../ui/Icon";

interface Props {
  readonly text: string;
  /** Whether the key `/` leads here, rather than to the search of a log. */
  readonly isShown: boolean;
  /** The jobs that match. */
  readonly jobs: readonly JobSummary[];
}

/** The search of the list: words of a title, a task, a tag, an owner, an error or an id. */
export function ListSearch({ text, isShown, jobs }: Props): ReactElement {
  const input = useRef<HTMLInputElement>(null);
  const hasKey = useStore(shortcuts) && isShown && text === "";
  useEffect(() => {
    const press = (event: globalThis.KeyboardEvent): void => {
      if (isShown && event.key === "/" && isShortcut(event)) {
        event.preventDefault();
        input.current?.focus();
      }
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, [isShown]);
  const press = (event: KeyboardEvent): void => {
    const [job] = jobs;
    if (event.key === "Enter" && text !== "" && job && jobs.length === 1) {
      window.location.hash = jobHash(job.jobId, parseRoute(window.location.hash).view);
    } else if (event.key === "Escape" && text !== "") {
      event.preventDefault();
      changeView({ search: "" });
    }
  };
  return (
    <search className="list-search">
      <Icon name="search" />
      <input
        ref={input}
        type="search"
        className="field"
        aria-label="Search the jobs"
        placeholder="Title, task, tag, owner, error or id"
        value={text}
        onChange={(event) => changeView({ search: event.target.value })}
        onKeyDown={press}
        autoComplete="off"
        autoCapitalize="none"
        spellCheck={false}
        enterKeyHint="search"
      />
      {hasKey ? <kbd>/</kbd> : null}
    </search>
  );
}
