import type { JobState } from "@jobcast/client";
import { Fragment, type ReactElement, useMemo } from "react";
import { about, ago, between, clock, span } from "../lib/durations";
import { leftOf } from "../lib/headline";
import { complaintsOf } from "../lib/lastWords";
import { rate } from "../lib/numbers";
import { wholeTimeOf } from "../lib/times";
import { useNow } from "../lib/useNow";

interface Props {
  readonly state: JobState;
  readonly sentAt: string | null;
}

/** Rate, time left, time taken: the numbers of a row. */
export function RowFacts({ state, sentAt }: Props): ReactElement {
  const now = useNow();
  // A look at all of the log: not with each second.
  const complaints = useMemo(() => (state.endedAt === null ? null : complaintsOf(state)), [state]);
  const facts = factsOf(state, now, complaints);
  const at = state.endedAt ?? sentAt;
  if (state.endedAt !== null || (facts.length === 0 && sentAt !== null)) {
    facts.push(ago(now - Date.parse(at ?? "")));
  }
  return (
    <p className="row-facts number" title={at === null ? undefined : wholeTimeOf(at)}>
      {facts.map((fact, index) => (
        <Fragment key={fact}>
          {index > 0 ? " · " : null}
          <span>{fact}</span>
        </Fragment>
      ))}
    </p>
  );
}

function factsOf(state: JobState, now: number, complaints: string | null): string[] {
  if (state.joined === "refused") {
    return [];
  }
  const facts: (string | null)[] = [];
  if (state.endedAt !== null) {
    const length = between(state.startedAt, state.endedAt);
    facts.push(length === null ? null : `took ${span(length)}`, complaints);
  } else {
    const left = leftOf(state, now);
    const since = state.startedAt ?? state.queuedAt;
    facts.push(
      since === null ? null : clock(now - Date.parse(since)),
      left === null ? null : `${about(left)} left`,
      state.status === "started" && state.rate !== null ? rate(state.rate) : null,
    );
  }
  facts.push(state.attempt > 1 ? `attempt ${state.attempt}` : null);
  return facts.filter((fact) => fact !== null);
}
