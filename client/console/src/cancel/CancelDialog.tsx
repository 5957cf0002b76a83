import type { CancelResult, JobcastError } from "@jobcast/client";
import { useCancelJob } from "@jobcast/client/react";
import { type FormEvent, type ReactElement, useEffect, useRef, useState } from "react";
import { announce } from "../lib/liveRegion";
import type { CancelTarget } from "./cancelContext";

const MAX_MESSAGE = 1000; // characters, as in the protocol

const ACCEPTED = "accepted"; // how the dialog was closed

interface Props {
  readonly target: CancelTarget;
  readonly onClose: () => void;
}

/** Asks whether to cancel a job, and shows why the server refuses it. */
export function CancelDialog({ target, onClose }: Props): ReactElement {
  const { jobId, name } = target;
  const dialog = useRef<HTMLDialogElement>(null);
  const keep = useRef<HTMLButtonElement>(null);
  const [message, setMessage] = useState("");
  const { cancel, isPending, error } = useCancelJob(jobId);
  useEffect(() => {
    const opener = document.activeElement;
    const shown = dialog.current;
    // The job may be in the list and on the page next to it.
    const job = opener?.closest("[data-job-id]") ?? null;
    shown?.showModal();
    keep.current?.focus(); // the safe choice
    return () => returnFocus(shown?.returnValue === ACCEPTED ? null : opener, job, jobId);
  }, [jobId]);
  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    if (isPending) {
      return;
    }
    const result = await cancel({ message: message.trim() });
    if (result !== null) {
      announce(outcomeText(result, name));
      dialog.current?.close(ACCEPTED);
    }
  };
  return (
    <dialog
      ref={dialog}
      className="dialog"
      aria-labelledby="cancel-title"
      aria-describedby="cancel-job"
      onClose={onClose}
    >
      <form onSubmit={submit}>
        <h2 id="cancel-title">Cancel this job?</h2>
        <p id="cancel-job">
          <strong>{name}</strong>
          {name.includes(jobId) ? null : <span className="mono faint">{jobId}</span>}
        </p>
        <label>
          Reason, for the job's followers (optional)
          <input
            className="field"
            value={message}
            maxLength={MAX_MESSAGE}
            onChange={(event) => setMessage(event.target.value)}
          />
        </label>
        {error === null ? null : (
          <p className="dialog-problem" role="alert">
            {refusalText(error)}
          </p>
        )}
        <div className="dialog-buttons">
          <button
            ref={keep}
            type="button"
            className="button"
            onClick={() => dialog.current?.close()}
          >
            Keep it running
          </button>
          <button type="submit" className="button danger" aria-disabled={isPending}>
            {isPending ? "Cancelling…" : "Cancel the job"}
          </button>
        </div>
      </form>
    </dialog>
  );
}

/** Focus the opener again, or else its job: an accepted request removes the button. */
function returnFocus(opener: Element | null, shownIn: Element | null, jobId: string): void {
  const job = shownIn?.isConnected
    ? shownIn
    : document.querySelector(`[data-job-id="${CSS.escape(jobId)}"]`);
  const places = [opener, job?.querySelector(".row-link, h1"), document.getElementById("main")];
  const place = places.find((one) => one?.isConnected && one.checkVisibility());
  if (place instanceof HTMLElement) {
    place.focus();
  }
}

function outcomeText({ outcome }: CancelResult, name: string): string {
  switch (outcome) {
    case "cancelled":
      return `${name} is cancelled`;
    case "already_ended":
      return `${name} had already ended`;
    default:
      return `${name} is asked to end`;
  }
}

function refusalText({ code, message }: JobcastError): string {
  switch (code) {
    case "job_not_found":
      return "You may not cancel this job.";
    case "not_cancellable":
      return "This job cannot be cancelled.";
    default:
      return `The job is not cancelled: ${message}`;
  }
}
