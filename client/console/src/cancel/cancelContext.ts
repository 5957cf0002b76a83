import { createContext, useContext } from "react";

/** The job that a dialog asks about. */
export interface CancelTarget {
  readonly jobId: string;
  readonly name: string;
}

interface Cancelling {
  /** Whether the server answers requests to cancel jobs. */
  readonly isOffered: boolean;
  /** Ask whether to cancel a job. */
  readonly ask: (target: CancelTarget) => void;
}

export const CancelContext = createContext<Cancelling>({ isOffered: false, ask: () => {} });

export function useCancelling(): Cancelling {
  return useContext(CancelContext);
}
