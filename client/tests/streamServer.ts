import {
  createServer,
  type Server as HttpServer,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";

type Fields = Record<string, unknown>;
type Message = readonly [name: string, payload: Fields];

interface StoredRecord {
  seq: number;
  status: string;
  readonly events: Message[];
}

/** A request for a stream. */
export interface StreamRequest {
  readonly jobs: readonly string[];
  readonly after: string | null;
  readonly token: string | null;
}

/** A request to cancel a job. */
export interface CancelRequest {
  readonly jobId: string;
  readonly token: string | null;
  readonly body: unknown;
}

interface OpenStream extends StreamRequest {
  readonly response: ServerResponse;
}

const EPOCH = "e1";

/** A server of event streams that implements the protocol, and refuses where a test asks for it. */
export class StreamServer {
  readonly requests: StreamRequest[] = [];
  /** Return a status and a problem to refuse a request. */
  refuse: (request: StreamRequest) => Problem | undefined = () => undefined;
  readonly cancelRequests: CancelRequest[] = [];
  /** Return the acknowledgement of a request to cancel a job, or a problem that refuses it. */
  cancel: (request: CancelRequest) => Fields | Problem = ({ jobId }) => ({
    ok: true,
    job_id: jobId,
    outcome: "requested",
  });
  /** Send only the head of each answer, as a proxy does that buffers. */
  holdsBack = false;
  readonly #http: HttpServer = createServer((request, response) => this.#serve(request, response));
  readonly #records = new Map<string, StoredRecord>();
  readonly #streams = new Set<OpenStream>();

  static async start(): Promise<StreamServer> {
    const server = new StreamServer();
    await new Promise<void>((resolve) => server.#http.listen(0, "127.0.0.1", resolve));
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#http.address() as AddressInfo).port}/prefix`;
  }

  get openStreams(): number {
    return this.#streams.size;
  }

  /** Publish an event of a job. */
  publish(jobId: string, name: string, data: Fields): void {
    const record = this.#record(jobId);
    record.seq += 1;
    record.status = statusAfter(name, data) ?? record.status;
    const stamp = { job_id: jobId, seq: record.seq, timestamp: "2026-01-15T09:30:00.250000Z" };
    record.events.push([name, { ...stamp, ...data }]);
    for (const stream of this.#streams) {
      if (stream.jobs.includes(jobId)) {
        write(stream.response, name, { ...stamp, ...data });
      }
    }
  }

  /** Send a message that is no event of a job. */
  send(name: string, payload: Fields): void {
    for (const { response } of this.#streams) {
      write(response, name, payload);
    }
  }

  /** Pretend that the last event of a job is no longer stored. */
  trim(jobId: string): void {
    this.#record(jobId).events.pop();
  }

  /** End all streams; abruptly, as a lost connection does, unless `orderly`. */
  cut({ orderly = false } = {}): void {
    for (const { response } of this.#streams) {
      orderly ? response.end() : response.destroy();
    }
    this.#streams.clear();
  }

  async stop(): Promise<void> {
    this.#http.closeAllConnections();
    await new Promise((resolve) => this.#http.close(resolve));
  }

  #serve(incoming: IncomingMessage, response: ServerResponse): void {
    const { pathname, searchParams } = new URL(incoming.url ?? "", this.url);
    const [, cancelled] = /^\/prefix\/jobs\/([^/]+)\/cancel$/.exec(pathname) ?? [];
    if (incoming.method === "POST" && cancelled) {
      void this.#serveCancel(decodeURIComponent(cancelled), incoming, response);
      return;
    }
    const request = {
      jobs: searchParams.getAll("job"),
      after: searchParams.get("after"),
      token: incoming.headers.authorization?.replace("Bearer ", "") ?? null,
    };
    this.requests.push(request);
    const problem =
      pathname === "/prefix/events" ? this.refuse(request) : { status: 404, code: "not_found" };
    if (problem) {
      writeProblem(response, problem);
      return;
    }
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    const stream = { ...request, response };
    this.#streams.add(stream);
    response.on("close", () => this.#streams.delete(stream));
    if (this.holdsBack) {
      response.flushHeaders();
      return;
    }
    response.write("retry: 20\n\n");
    this.#join(stream);
  }

  async #serveCancel(
    jobId: string,
    incoming: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) {
      chunks.push(chunk as Buffer);
    }
    const body: unknown = JSON.parse(Buffer.concat(chunks).toString() || "{}");
    const token = incoming.headers.authorization?.replace("Bearer ", "") ?? null;
    const request = { jobId, token, body };
    this.cancelRequests.push(request);
    const answer = this.cancel(request);
    if ("status" in answer) {
      writeProblem(response, answer as Problem);
    } else {
      response.writeHead(200, { "Content-Type": "application/json" });
      response.end(JSON.stringify(answer));
    }
  }

  #join({ jobs, after, response }: OpenStream): void {
    const cursors = after?.split(",") ?? [];
    for (const [index, jobId] of jobs.entries()) {
      const { seq, status, events } = this.#record(jobId);
      const known = Number(cursors[index]?.split(":")[1] ?? 0);
      write(response, "joined", { job_id: jobId, epoch: EPOCH, seq, status });
      for (const [name, payload] of events) {
        if ((payload.seq as number) > known) {
          write(response, name, payload);
        }
      }
    }
  }

  #record(jobId: string): StoredRecord {
    const record = this.#records.get(jobId) ?? { seq: 0, status: "pending", events: [] };
    this.#records.set(jobId, record);
    return record;
  }
}

interface Problem {
  readonly status: number;
  readonly code: string;
  readonly headers?: Record<string, string>;
  /** Another body than the problem document. */
  readonly body?: string;
}

function writeProblem(
  response: ServerResponse,
  { status, headers = {}, body, ...document }: Problem,
): void {
  response.writeHead(status, { "Content-Type": "application/problem+json", ...headers });
  response.end(body ?? JSON.stringify({ detail: "refused", ...document }));
}

function write(response: ServerResponse, name: string, payload: Fields): void {
  response.write(`event: ${name}\ndata: ${JSON.stringify(payload)}\nid: ignored\n\n`);
}

function statusAfter(name: string, { status, reason }: Fields): string | undefined {
  if (name === "job_complete") {
    return "complete";
  }
  if (name === "job_error") {
    return reason === "cancelled" || reason === "revoked" ? "cancelled" : "error";
  }
  return name === "job_status" ? (status as string) : undefined;
}
