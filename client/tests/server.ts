import { createServer, type Server as HttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type Namespace, Server, type Socket } from "socket.io";
import { matches } from "../src/feedFilter.js";
import { toSummary } from "../src/jobSummary.js";
import type { FeedFilterFields, JobSummaryMessage, JoinFeedRequest } from "../src/protocol.js";

const FEED_PAGE = 100; // jobs per snapshot message

type Message = readonly [name: string, payload: Record<string, unknown>];

interface StoredRecord {
  readonly epoch: string;
  seq: number;
  /** The `seq` from which no event is trimmed. */
  completeFrom: number;
  events: Message[];
}
type Transport = "websocket" | "polling";
type Answer = (payload: unknown) => void;

/** A Socket.IO server that implements the protocol, and violates it where a test asks for it. */
export class TestServer {
  /** All requests, in order. */
  readonly requests: [name: string, payload: Record<string, unknown>][] = [];
  readonly tokens: unknown[] = [];
  /** Return an error to refuse a connection. */
  refuse: (token: unknown) => Error | undefined = () => undefined;
  /** Return an acknowledgement to replace the server's own, or `null` to send none. */
  answer: (name: string, payload: Record<string, unknown>) => unknown = () => undefined;
  /** The payload of `hello`; null for a server that does not send it. */
  hello: unknown = { protocol: 1, server: "jobcast/test", features: ["join_job"] };
  port = 0;
  readonly #http: HttpServer = createServer();
  readonly #io: Server;
  readonly #jobs: Namespace;
  readonly #records = new Map<string, StoredRecord>();
  readonly #feeds = new Map<string, JobSummaryMessage[]>();
  #epochs = 0;

  static start(): Promise<TestServer> {
    return TestServer.startAt(0);
  }

  static async startAt(
    port: number,
    transport: Transport = "websocket",
    namespace = "/",
  ): Promise<TestServer> {
    const server = new TestServer(transport, namespace);
    await new Promise<void>((resolve) => server.#http.listen(port, "127.0.0.1", resolve));
    server.port = (server.#http.address() as AddressInfo).port;
    return server;
  }

  private constructor(transport: Transport, namespace: string) {
    this.#io = new Server(this.#http, { transports: [transport], serveClient: false });
    this.#jobs = this.#io.of(namespace);
    this.#jobs.use((socket, next) => {
      this.tokens.push(socket.handshake.auth.token);
      next(this.refuse(socket.handshake.auth.token));
    });
    this.#jobs.on("connection", (socket) => this.#serve(socket));
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get connections(): number {
    return this.#io.engine.clientsCount;
  }

  requestsNamed(name: string): Record<string, unknown>[] {
    return this.requests.filter((request) => request[0] === name).map((request) => request[1]);
  }

  /** Publish an event of a job. */
  publish(jobId: string, name: string, data: Record<string, unknown>): void {
    const record = this.#record(jobId);
    record.seq += 1;
    const { seq } = record;
    const stamp = { job_id: jobId, seq, timestamp: "2026-01-15T09:30:00.250000Z" };
    record.events.push([name, { ...stamp, ...data }]);
    this.#jobs.to(jobId).emit(name, { ...stamp, ...data });
  }

  /** Remove the log lines of a job with a `seq` less than `before`. */
  trim(jobId: string, before: number): void {
    const record = this.#record(jobId);
    record.completeFrom = before;
    record.events = record.events.filter(
      ([name, { seq }]) => name !== "job_log" || Number(seq) >= before,
    );
  }

  /** Start a new record for a job. */
  resetRecord(jobId: string): void {
    this.#records.delete(jobId);
    const { epoch } = this.#record(jobId);
    this.emit("joined", { job_id: jobId, epoch, seq: 0, status: "pending" });
  }

  /** Set the jobs of a feed for later joins. */
  setFeed(name: string, jobs: readonly JobSummaryMessage[]): void {
    const newestFirst = [...jobs].sort((one, other) => compare(other.created_at, one.created_at));
    this.#feeds.set(name, newestFirst);
  }

  /** Send a message to all clients. */
  emit(name: string, ...payload: unknown[]): void {
    this.#jobs.emit(name, ...payload);
  }

  /** End all connections, like a server that disconnects or a network that fails. */
  drop(how: "server" | "network" = "network"): void {
    for (const socket of this.#jobs.sockets.values()) {
      if (how === "server") {
        socket.disconnect();
      } else {
        socket.conn.close();
      }
    }
  }

  async stop(): Promise<void> {
    await this.#io.close();
  }

  #record(jobId: string): StoredRecord {
    let record = this.#records.get(jobId);
    if (!record) {
      this.#epochs += 1;
      record = { epoch: `epoch-${this.#epochs}`, seq: 0, completeFrom: 1, events: [] };
      this.#records.set(jobId, record);
    }
    return record;
  }

  #serve(socket: Socket): void {
    if (this.hello !== null) {
      socket.emit("hello", this.hello);
    }
    const serve = (name: string, handle: (payload: Record<string, unknown>) => unknown): void => {
      socket.on(name, (payload: Record<string, unknown>, answer?: Answer) => {
        this.requests.push([name, payload]);
        const replacement = this.answer(name, payload);
        if (replacement instanceof Promise) {
          void replacement.then(answer);
        } else if (replacement !== null) {
          answer?.(replacement ?? handle(payload));
        }
      });
    };
    serve("join_job", (payload) => this.#join(socket, payload));
    serve("leave_job", ({ job_id }) => {
      socket.leave(String(job_id));
      return { ok: true, job_id };
    });
    serve("cancel_job", ({ job_id }) => ({ ok: true, job_id, outcome: "requested" }));
    let filter: FeedFilterFields = {};
    serve("join_feed", (payload) => {
      const request = payload as unknown as JoinFeedRequest;
      filter = request.after === undefined ? (request.filter ?? {}) : filter;
      return this.#joinFeed(socket, request, filter);
    });
    serve("leave_feed", ({ feed }) => ({ ok: true, feed }));
    serve("refresh_token", () => ({ ok: true, expires_at: "2026-01-15T09:30:00Z" }));
  }

  /** Send the requested part of a feed in pages. A cursor is the number of the jobs before it. */
  #joinFeed(socket: Socket, request: JoinFeedRequest, filter: FeedFilterFields): unknown {
    const { feed, after, limit = 100 } = request;
    const all = this.#feeds.get(feed) ?? [];
    const jobs = all.filter((message) => matches(filter, toSummary(message)));
    const [start, end] = [Number(after ?? 0), Math.min(Number(after ?? 0) + limit, jobs.length)];
    const cursor = end < jobs.length ? { cursor: String(end) } : {};
    for (let place = start; place === start || place < end; place += FEED_PAGE) {
      const next = place + FEED_PAGE;
      socket.emit("feed_snapshot", {
        feed,
        jobs: jobs.slice(place, Math.min(next, end)),
        ...(place === 0 ? { reset: true } : {}),
        ...(next >= end ? { last: true, ...cursor } : {}),
      });
    }
    return { ok: true, feed, total: jobs.length };
  }

  #join(socket: Socket, payload: Record<string, unknown>): unknown {
    const jobId = String(payload.job_id);
    const { epoch, seq, events, completeFrom: before } = this.#record(jobId);
    const cursor = payload.after as { epoch: string; seq: number } | undefined;
    const after = cursor?.epoch === epoch ? cursor.seq : 0;
    const recovered = cursor?.epoch === epoch && before <= after + 1;
    const record = { job_id: jobId, epoch, seq, status: stateAfter(events) };
    const trimmed = before > 1 ? { complete_from: before } : {};
    socket.emit("joined", { ...record, ...descriptionAfter(events), ...trimmed });
    const replay = events.filter(([, event]) => !recovered || Number(event.seq) > after);
    if (after + 1 < before) {
      const place = replay.findIndex(([, event]) => Number(event.seq) >= before);
      replay.splice(place, 0, ["job_gap", { job_id: jobId, after, before }]);
    }
    for (const [name, event] of replay) {
      socket.emit(name, event);
    }
    socket.join(jobId);
    return { ok: true, ...record, recovered };
  }
}

function compare(one: string, other: string): number {
  return one < other ? -1 : 1;
}

function stateAfter(events: readonly Message[]): unknown {
  const states = events.map(([name, { status, reason }]) => {
    const end = reason === "cancelled" || reason === "revoked" ? "cancelled" : "error";
    const ends: Record<string, string> = { job_complete: "complete", job_error: end };
    return status ?? ends[name];
  });
  return states.filter(Boolean).at(-1) ?? "pending";
}

/** Return the description of a job with one run. */
function descriptionAfter(events: readonly Message[]): Record<string, unknown> {
  const names = ["task", "title", "tags", "queue", "worker", "parent", "created_at"];
  const fields = events.flatMap(([, payload]) => Object.entries(payload));
  return Object.fromEntries(fields.filter(([name]) => names.includes(name)));
}
