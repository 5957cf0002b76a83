import { type DragEvent, type ReactElement, useId, useRef, useState } from "react";
import { useJobLists } from "../jobs/jobsContext";
import { announce } from "../lib/liveRegion";
import { shortId } from "../lib/names";
import { bytes, count } from "../lib/numbers";
import { messageOf } from "../lib/records";
import { hashOf, routeOf } from "../lib/route";
import type { Task } from "../session/api";
import { Icon } from "../ui/Icon";

const LARGEST = 32 * 1024 * 1024; // bytes that the server takes

interface Started {
  readonly number: number;
  readonly latest: string;
}

/** A task with what starts it. The focus stays where it is, so that it can be started again. */
export function TaskCard({ task }: { readonly task: Task }): ReactElement {
  const lists = useJobLists();
  const id = useId();
  const input = useRef<HTMLInputElement>(null);
  const [underway, setUnderway] = useState(0);
  const [upload, setUpload] = useState<string | null>(null);
  const [started, setStarted] = useState<Started | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [isOver, setOver] = useState(false);

  const start = async (file: File | null): Promise<void> => {
    setProblem(null);
    setUnderway((number) => number + 1);
    try {
      const { jobId } = await lists.startJob(task.name, file);
      setStarted((before) => ({ number: (before?.number ?? 0) + 1, latest: jobId }));
      announce(`Started: ${task.title}`);
      // On a narrow page the tasks are shown at home only as long as there are no jobs.
      if (routeOf(window.location.hash).page === "home") {
        window.location.replace("#/start");
      }
    } catch (error) {
      setProblem(`It was not started. ${messageOf(error)}`);
    } finally {
      setUnderway((number) => number - 1);
    }
  };
  const startWith = async (file: File | undefined): Promise<void> => {
    const flaw = file && task.accepts ? flawOf(file, task.accepts.extension) : null;
    if (!file || flaw !== null) {
      setProblem(flaw);
      return;
    }
    setUpload(`Sending ${file.name}, ${bytes(file.size)}…`);
    await start(file);
    setUpload(null);
    if (input.current) {
      input.current.value = ""; // the same file may be chosen again
    }
  };
  const drop = (event: DragEvent): void => {
    event.preventDefault();
    setOver(false);
    void startWith(event.dataTransfer.files[0]);
  };
  const { accepts } = task;
  const dropping = accepts && {
    onDragOver: (event: DragEvent) => {
      event.preventDefault();
      setOver(true);
    },
    onDragLeave: () => setOver(false),
    onDrop: drop,
  };
  return (
    <li className="card" data-task={task.name} data-over={isOver || undefined} {...dropping}>
      <h2>{task.title}</h2>
      <p>{task.description}</p>
      {accepts ? (
        <p id={`${id}-file`} className="faint">
          Or drop a {accepts.extension} file here. Its first line:{" "}
          <code>{accepts.columns.join(",")}</code>
        </p>
      ) : null}
      <div className="card-actions">
        <button
          type="button"
          className="button primary"
          aria-label={accepts ? `Start with the sample: ${task.title}` : `Start ${task.title}`}
          aria-busy={underway > 0}
          onClick={() => void start(null)}
        >
          <Icon name="play" />
          {accepts ? "Start with the sample" : "Start"}
        </button>
        {accepts ? (
          <label className="button file">
            <Icon name="upload" />
            Use a file of yours
            <input
              ref={input}
              type="file"
              accept={`${accepts.extension},text/csv`}
              className="visually-hidden"
              aria-label={`File for ${task.title}`}
              aria-describedby={`${id}-file ${id}-problem`}
              onChange={(event) => void startWith(event.target.files?.[0])}
            />
          </label>
        ) : null}
      </div>
      <div className="card-answer">
        {upload === null ? null : <p>{upload}</p>}
        {problem === null ? null : (
          <p id={`${id}-problem`} className="problem" role="alert">
            {problem}
          </p>
        )}
        {started === null || problem !== null ? null : (
          <p className="good">
            <Icon name="check" />{" "}
            {started.number === 1
              ? "Started: "
              : `Started ${count(started.number)} times, the latest: `}
            <a href={hashOf(started.latest)}>open {shortId(started.latest)}</a>
          </p>
        )}
      </div>
    </li>
  );
}

function flawOf(file: File, extension: string): string | null {
  if (!file.name.toLowerCase().endsWith(extension)) {
    return `${file.name} is no ${extension} file.`;
  }
  return file.size > LARGEST
    ? `${file.name} has ${bytes(file.size)}: ${bytes(LARGEST)} are taken at most.`
    : null;
}
