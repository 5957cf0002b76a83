import { type ReactElement, useCallback, useEffect, useRef, useState } from "react";
import { hasNavigated } from "../lib/navigation";
import type { Route } from "../lib/route";
import { errorMessage } from "../lib/untrusted";
import { Icon } from "../ui/Icon";
import { getTasks, type Task } from "./api";
import { TaskCard } from "./TaskCard";

/** The sample tasks, each with a start button. */
export function StartPanel({ page }: { readonly page: Route["page"] }): ReactElement {
  const [tasks, setTasks] = useState<readonly Task[] | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const panel = useRef<HTMLDivElement>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  const load = useCallback(() => {
    setProblem(null);
    getTasks().then(setTasks, (error: unknown) => setProblem(errorMessage(error)));
  }, []);
  useEffect(load, [load]);
  useEffect(() => {
    document.title = "jobcast";
    // The focus stays on the start button that was just pressed.
    const isAway = page === "start" || document.activeElement === document.body;
    if (hasNavigated() && isAway && !panel.current?.contains(document.activeElement)) {
      heading.current?.focus();
    }
  }, [page]);
  return (
    <div className="start" ref={panel}>
      <a className="back" href="#/">
        <Icon name="back" />
        All jobs
      </a>
      <h1 ref={heading} tabIndex={-1}>
        Start a job
      </h1>
      <p className="lead">These sample tasks do real work. Start as many as you like.</p>
      {problem === null ? null : (
        <div className="panel" role="alert">
          <p>The tasks cannot be loaded. {problem}</p>
          <button type="button" className="button" onClick={load}>
            Try again
          </button>
        </div>
      )}
      {tasks === null && problem === null ? <p className="faint">Loading the tasks…</p> : null}
      <ul className="cards" aria-label="Tasks">
        {tasks?.map((task) => (
          <TaskCard key={task.name} task={task} />
        ))}
      </ul>
    </div>
  );
}
