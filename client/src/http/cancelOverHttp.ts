/** The request to cancel a job over the HTTP interface. */

import { retryDelay } from "../backoff.js";
import {
  CANCEL_TIMEOUT,
  type CancelOptions,
  type CancelResult,
  cancelRequest,
} from "../cancelRequests.js";
import { CancelRefused, ConnectionRefused, InvalidMessage } from "../errors.js";
import { parse } from "../parse.js";
import { foreignAnswer, isTemporary, type Problem, readProblem } from "./problem.js";
import { requestFrom } from "./requestFrom.js";
import type { TokenCache } from "./tokenCache.js";
import type { IssuedToken } from "./tokenEndpoint.js";

/** The client, as the request sees it. */
export interface HttpCancelHost {
  /** The source of tokens; null if cookies authenticate the page. */
  readonly tokens: TokenCache | null;
  /** How often the user has changed. */
  readonly subjectChanges: number;
  serverUrl(token: IssuedToken | null): URL;
  pause(delay: number): Promise<void>;
}

/**
 * Cancel a job. The request is repeated for 20 seconds after failures that may be temporary.
 *
 * @throws CancelRefused if the server refuses, or does not answer in time.
 */
export async function cancelOverHttp(
  jobId: string,
  options: CancelOptions,
  host: HttpCancelHost,
): Promise<CancelResult> {
  const { message } = cancelRequest(jobId, options);
  const body = JSON.stringify(message === undefined ? {} : { message });
  const request: HttpCancelRequest = { jobId, body, subjectChanges: null };
  const deadline = AbortSignal.timeout(CANCEL_TIMEOUT);
  let mayReplaceToken = true;
  let problem: Problem = NO_ANSWER;
  for (let retries = 0; !deadline.aborted; retries += 1) {
    const answer = await attempt(request, host, deadline);
    if ("outcome" in answer) {
      return answer;
    }
    problem = answer;
    if (problem.status === 401 && mayReplaceToken) {
      mayReplaceToken = false;
      host.tokens?.discard();
    } else if (isTemporary(problem)) {
      await host.pause(Math.min(CANCEL_TIMEOUT, retryDelay(problem, retries)));
    } else {
      break;
    }
  }
  throw new CancelRefused(jobId, problem.code, problem.message);
}

interface HttpCancelRequest {
  readonly jobId: string;
  readonly body: string;
  subjectChanges: number | null; // at the first attempt
}

const NO_ANSWER: Problem = {
  status: 503,
  code: "unavailable",
  message: "the server cannot be reached: the job may go on",
};
const SIGNED_OUT: Problem = {
  status: 403,
  code: "token_missing",
  message: "no user is signed in",
};
const OTHER_USER: Problem = {
  status: 403,
  code: "token_subject",
  message: "another user signed in",
};

async function attempt(
  request: HttpCancelRequest,
  host: HttpCancelHost,
  signal: AbortSignal,
): Promise<CancelResult | Problem> {
  try {
    const token = (await host.tokens?.get(signal)) ?? null;
    if (host.tokens && !token) {
      return SIGNED_OUT;
    }
    request.subjectChanges ??= host.subjectChanges;
    if (request.subjectChanges !== host.subjectChanges) {
      return OTHER_USER;
    }
    const path = `jobs/${encodeURIComponent(request.jobId)}/cancel`;
    const response = await requestFrom(host.serverUrl(token), path, signal, {
      method: "POST",
      headers: {
        Accept: "application/json",
        "Content-Type": "application/json",
        ...(token ? { Authorization: `Bearer ${token.token}` } : {}),
      },
      credentials: token ? "same-origin" : "include",
      body: request.body,
    });
    return response.ok ? readAnswer(response) : readProblem(response);
  } catch (error) {
    return error instanceof ConnectionRefused
      ? { status: 403, code: error.code, message: error.message }
      : NO_ANSWER; // the network, a proxy, or the source of tokens
  }
}

async function readAnswer(response: Response): Promise<CancelResult | Problem> {
  const answer: unknown = await response.json().catch(() => null);
  try {
    const ack = parse("cancel_job.ack", answer);
    if (ack.ok) {
      return { outcome: ack.outcome, terminates: ack.terminates ?? false };
    }
  } catch (error) {
    if (!(error instanceof InvalidMessage)) {
      throw error;
    }
  }
  return foreignAnswer(response);
}
