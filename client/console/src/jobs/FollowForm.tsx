import { isJobId } from "@jobcast/client";
import { type FormEvent, type ReactElement, useState } from "react";
import { jobHash } from "../lib/route";
import { Field } from "../ui/Field";
import { useJobListStore } from "./jobsContext";

/** Adds a job that another client sent to the list, by its id. */
export function FollowForm(): ReactElement {
  const listStore = useJobListStore();
  const [text, setText] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    const jobId = text.trim();
    if (!isJobId(jobId)) {
      setProblem(
        jobId === ""
          ? "Enter a job id."
          : "Invalid job id. Use 1 to 128 letters, digits or _ . : @ = + / ~ -",
      );
      return;
    }
    setProblem(null);
    setText("");
    listStore.follow(jobId);
    window.location.hash = jobHash(jobId);
  };
  return (
    <form className="follow" aria-label="Follow a job" onSubmit={submit} noValidate>
      <Field
        id="follow"
        label="Follow a job by its id"
        className="field mono"
        text={text}
        onText={setText}
        problem={problem}
        autoComplete="off"
      >
        <button type="submit" className="button">
          Follow
        </button>
      </Field>
    </form>
  );
}
