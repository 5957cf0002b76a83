import { createContext, useContext } from "react";
import type { JobLists } from "./jobList";
import type { ProgressBook } from "./progressBook";

export interface Jobs {
  readonly lists: JobLists;
  readonly book: ProgressBook;
}

export const JobsContext = createContext<Jobs | null>(null);

export function useJobLists(): JobLists {
  return jobs(useContext(JobsContext)).lists;
}

export function useProgressBook(): ProgressBook {
  return jobs(useContext(JobsContext)).book;
}

function jobs(value: Jobs | null): Jobs {
  if (value === null) {
    throw new Error("there is no console around this component");
  }
  return value;
}
