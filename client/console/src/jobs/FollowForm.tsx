import { isJobId } from "@jobcast/client";
import { type FormEvent, type ReactElement, useState } from "react";
import { hashOf } from "../lib/route";
import { Field } from "../ui/Field";
import { useJobLists } from "./jobsContext";

/** Follows a job that was sent elsewhere, by its id. */
export function FollowForm(): ReactElement {
  const lists = useJobLists();
  const [text, setText] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    const jobId = text.trim();
    if (!isJobId(jobId)) {
      setProblem(
        jobId === ""
          ? "Give the id of a job."
          : "This cannot be the id of a job: 1 to 128 letters, digits or _ . : @ = + / ~ -",
      );
      return;
    }
    setProblem(null);
    setText("");
    lists.follow(jobId);
    window.location.hash = hashOf(jobId);
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
