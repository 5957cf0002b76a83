import { createContext, useContext } from "react";
import type { JobListStore } from "./jobListStore";
import type { ProgressHistory } from "./progressHistory";

export interface Jobs {
  readonly listStore: JobListStore;
  readonly progressHistory: ProgressHistory;
}

export const JobsContext = createContext<Jobs | null>(null);

export function useJobListStore(): JobListStore {
  return jobs(useContext(JobsContext)).listStore;
}

export function useProgressHistory(): ProgressHistory {
  return jobs(useContext(JobsContext)).progressHistory;
}

function jobs(value: Jobs | null): Jobs {
  if (value === null) {
    throw new Error("this component needs a <JobsContext> above it");
  }
  return value;
}
