import { createServer, type Server as HttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type Namespace, Server, type Socket } from "socket.io";

type Message = readonly [name: string, payload: Record<string, unknown>];
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
  port = 0;
  readonly #http: HttpServer = createServer();
  readonly #io: Server;
  readonly #jobs: Namespace;
  readonly #records = new Map<string, { epoch: string; events: Message[] }>();
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
    const seq = record.events.length + 1;
    const stamp = { job_id: jobId, seq, timestamp: "2026-01-15T09:30:00.250000Z" };
    record.events.push([name, { ...stamp, ...data }]);
    this.#jobs.to(jobId).emit(name, { ...stamp, ...data });
  }

  /** Start a new record for a job. */
  resetRecord(jobId: string): void {
    this.#records.delete(jobId);
    const { epoch } = this.#record(jobId);
    this.emit("joined", { job_id: jobId, epoch, seq: 0, status: "pending" });
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

  #record(jobId: string): { epoch: string; events: Message[] } {
    let record = this.#records.get(jobId);
    if (!record) {
      this.#epochs += 1;
      record = { epoch: `epoch-${this.#epochs}`, events: [] };
      this.#records.set(jobId, record);
    }
    return record;
  }

  #serve(socket: Socket): void {
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
    serve("refresh_token", () => ({ ok: true, expires_at: "2026-01-15T09:30:00Z" }));
  }

  #join(socket: Socket, payload: Record<string, unknown>): unknown {
    const jobId = String(payload.job_id);
    const { epoch, events } = this.#record(jobId);
    const after = payload.after as { epoch: string; seq: number } | undefined;
    const recovered = after?.epoch === epoch;
    const seq = events.length;
    const joined = { job_id: jobId, epoch, seq, status: stateAfter(events) };
    socket.emit("joined", joined);
    for (const [name, event] of recovered ? events.slice(after.seq) : events) {
      socket.emit(name, event);
    }
    socket.join(jobId);
    return { ok: true, ...joined, recovered };
  }
}

function stateAfter(events: readonly Message[]): unknown {
  const ends: Record<string, string> = { job_complete: "complete", job_error: "error" };
  const states = events.map(([name, { status }]) => status ?? ends[name]).filter(Boolean);
  return states.at(-1) ?? "pending";
}
