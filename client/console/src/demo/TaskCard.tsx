import { type DragEvent, type ReactElement, useId, useRef, useState } from "react";
import { formatBytes, formatCount } from "../lib/formatNumber";
import { ApiError } from "../lib/http";
import { shortId } from "../lib/jobNames";
import { announce } from "../lib/liveRegion";
import { jobHash, parseRoute, replaceHash, startHash } from "../lib/route";
import { errorMessage } from "../lib/untrusted";
import { Icon } from "../ui/Icon";
import { startJob, type Task } from "./api";
import { session } from "./demoSession";

const MAX_UPLOAD = 32 * 1024 * 1024; // bytes; the server's limit

interface Started {
  readonly number: number;
  readonly latest: string;
}

/** A task with its start buttons. The focus stays on the button, so that it can be pressed again. */
export function TaskCard({ task }: { readonly task: Task }): ReactElement {
  const id = useId();
  const input = useRef<HTMLInputElement>(null);
  const [pending, setPending] = useState(0);
  const [upload, setUpload] = useState<string | null>(null);
  const [started, setStarted] = useState<Started | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [isDropTarget, setDropTarget] = useState(false);

  const start = async (file: File | null): Promise<void> => {
    setProblem(null);
    setPending((number) => number + 1);
    stayOnStartPage();
    try {
      const jobId = await startJob(task.name, file);
      setStarted((before) => ({ number: (before?.number ?? 0) + 1, latest: jobId }));
      announce(`Started: ${task.title}`);
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        session.expire();
      }
      setProblem(`The job was not started. ${errorMessage(error)}`);
    } finally {
      setPending((number) => number - 1);
    }
  };
  const startWith = async (file: File | undefined): Promise<void> => {
    const fileError = file && task.accepts ? fileProblem(file, task.accepts.extension) : null;
    if (!file || fileError !== null) {
      setProblem(fileError);
      return;
    }
    setUpload(`Sending ${file.name}, ${formatBytes(file.size)}…`);
    await start(file);
    setUpload(null);
    if (input.current) {
      input.current.value = ""; // allows choosing the same file again
    }
  };
  const drop = (event: DragEvent): void => {
    event.preventDefault();
    setDropTarget(false);
    void startWith(event.dataTransfer.files[0]);
  };
  const { accepts } = task;
  const dropping = accepts && {
    onDragOver: (event: DragEvent) => {
      event.preventDefault();
      setDropTarget(true);
    },
    onDragLeave: () => setDropTarget(false),
    onDrop: drop,
  };
  return (
    <li className="card" data-task={task.name} data-over={isDropTarget || undefined} {...dropping}>
      <h2>{task.title}</h2>
      <p>{task.description}</p>
      {accepts ? (
        <p id={`${id}-file`} className="faint">
          Or drop a {accepts.extension} file here. Its first line has to be{" "}
          <code>{accepts.columns.join(",")}</code>
        </p>
      ) : null}
      <div className="card-actions">
        <button
          type="button"
          className="button primary"
          aria-label={accepts ? `Start with the sample: ${task.title}` : `Start ${task.title}`}
          aria-busy={pending > 0}
          onClick={() => void start(null)}
        >
          <Icon name="play" />
          {accepts ? "Start with the sample" : "Start"}
        </button>
        {accepts ? (
          <label className="button file">
            <Icon name="upload" />
            Use your own file
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
      <div className="card-message">
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
              : `Started ${formatCount(started.number)} times, latest: `}
            <a href={jobHash(started.latest)}>open {shortId(started.latest)}</a>
          </p>
        )}
      </div>
    </li>
  );
}

/** Keep the tasks on the page: the home page shows them only until there are jobs. */
function stayOnStartPage(): void {
  const { page, view } = parseRoute(window.location.hash);
  if (page === "home") {
    replaceHash(startHash(view));
  }
}

function fileProblem(file: File, extension: string): string | null {
  if (!file.name.toLowerCase().endsWith(extension)) {
    return `${file.name} is not a ${extension} file.`;
  }
  return file.size > MAX_UPLOAD
    ? `${file.name} has ${formatBytes(file.size)}. The maximum is ${formatBytes(MAX_UPLOAD)}.`
    : null;
}
