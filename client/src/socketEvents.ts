/** The messages as event maps, for pages that use socket.io-client without this client. */

import type { JobEventName, Messages } from "./protocol.js";

type ServerMessage =
  | JobEventName
  | "hello"
  | "joined"
  | "job_gap"
  | "left"
  | "feed_snapshot"
  | "feed_job"
  | "feed_gone"
  | "feed_left"
  | "token_expiring"
  | "closing"
  | "draining";

/**
 * What the server sends.
 *
 * @example
 * const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io(url, { auth: { token } });
 */
export type ServerToClientEvents = {
  readonly [N in ServerMessage]: (message: Messages[N]) => void;
};

/**
 * What a client requests. The acknowledgement tells whether the server refuses it.
 *
 * @example
 * const answer = await socket.emitWithAck("join_job", { job_id: jobId });
 */
export interface ClientToServerEvents {
  join_job(request: Messages["join_job"], ack: (answer: Messages["join_job.ack"]) => void): void;
  leave_job(request: Messages["leave_job"], ack: (answer: Messages["leave_job.ack"]) => void): void;
  cancel_job(
    request: Messages["cancel_job"],
    ack: (answer: Messages["cancel_job.ack"]) => void,
  ): void;
  join_feed(request: Messages["join_feed"], ack: (answer: Messages["join_feed.ack"]) => void): void;
  leave_feed(
    request: Messages["leave_feed"],
    ack: (answer: Messages["leave_feed.ack"]) => void,
  ): void;
  refresh_token(
    request: Messages["refresh_token"],
    ack: (answer: Messages["refresh_token.ack"]) => void,
  ): void;
}
