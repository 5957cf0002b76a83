/** Factories for job states, log lines and status changes. */

import type { Gap, JobState, JobSummary, LogLine, StatusChange } from "@jobcast/client";

export const START = Date.parse("2026-01-15T09:30:00Z");

/** Return the RFC 3339 timestamp some seconds after the start. */
export function at(seconds: number): string {
  return new Date(START + seconds * 1000).toISOString();
}

export function job(values: Partial<JobState> = {}): JobState {
  return {
    jobId: "import_csv-0a1b2c3d",
    status: "started",
    joined: "yes",
    refusal: null,
    task: "tasks.people.import_csv",
    title: null,
    tags: [],
    queue: "celery",
    worker: "celery@host",
    parent: null,
    owner: "ada",
    createdAt: at(0),
    cancellable: true,
    terminates: false,
    attempt: 1,
    run: 1,
    percentage: null,
    message: null,
    stage: null,
    current: null,
    total: null,
    rate: null,
    eta: null,
    retry: null,
    logs: [],
    droppedLogs: 0,
    history: [],
    gaps: [],
    result: null,
    error: null,
    cancellation: null,
    queuedAt: at(0),
    startedAt: at(1),
    endedAt: null,
    updatedAt: at(1),
    connection: "connected",
    ...values,
  };
}

export function line(seq: number, values: Partial<LogLine> = {}): LogLine {
  return { seq, timestamp: at(seq), level: "info", message: `line ${seq}`, ...values };
}

export function change(seq: number, values: Partial<StatusChange> = {}): StatusChange {
  return {
    seq,
    timestamp: at(seq),
    status: "started",
    task: null,
    attempt: null,
    run: null,
    retryAt: null,
    error: null,
    message: null,
    reason: null,
    by: null,
    ...values,
  };
}

export function gap(after: number, before: number): Gap {
  return { after, before };
}

export function summary(values: Partial<JobSummary> = {}): JobSummary {
  return {
    jobId: "import_csv-0a1b2c3d",
    epoch: "e",
    seq: 1,
    status: "started",
    task: "tasks.people.import_csv",
    title: null,
    tags: [],
    queue: null,
    worker: null,
    parent: null,
    owner: null,
    createdAt: at(0),
    cancellable: true,
    terminates: false,
    startedAt: at(1),
    endedAt: null,
    attempt: 1,
    percentage: null,
    message: null,
    reason: null,
    ...values,
  };
}
