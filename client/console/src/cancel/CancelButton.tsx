import { isCancellable, type JobState } from "@jobcast/client";
import type { ReactElement } from "react";
import { Icon } from "../ui/Icon";
import { useCancelling } from "./cancelContext";

interface Props {
  readonly job: Pick<JobState, "jobId" | "status" | "cancellable">;
  readonly name: string;
  readonly className?: string;
}

/** The button that asks whether to cancel a job, while a request can cancel it. */
export function CancelButton({ job, name, className = "" }: Props): ReactElement | null {
  const { isOffered, ask } = useCancelling();
  if (!isOffered || !isCancellable(job)) {
    return null;
  }
  return (
    <button
      type="button"
      className={`button ${className}`}
      data-action="cancel"
      aria-haspopup="dialog"
      onClick={() => ask({ jobId: job.jobId, name })}
    >
      <Icon name="stop" />
      Cancel
      <span className="visually-hidden"> {name}</span>
    </button>
  );
}
