import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const PYTHON = process.env.JOBCAST_TEST_PYTHON ?? `${ROOT}/.venv/bin/python`;

interface Reply {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: string;
}

interface PendingCall {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** Controls the processes that `backend.py` starts. */
export class Backend {
  readonly url: string;
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #pending = new Map<number, PendingCall>();
  #number = 0;

  static start(): Promise<Backend> {
    return new Promise((resolve, reject) => {
      const process = spawn(PYTHON, [`${ROOT}/client/tests/live/backend.py`], { cwd: ROOT });
      let errors = "";
      let backend: Backend | undefined;
      process.stderr.on("data", (text) => {
        errors += text;
      });
      process.on("error", reject);
      process.on("exit", (code) => {
        const error = new Error(`the backend exited with ${code}:\n${errors}`);
        reject(error);
        backend?.fail(error);
      });
      createInterface(process.stdout).on("line", (line) => {
        const message = JSON.parse(line);
        if (backend) {
          backend.handleReply(message);
        } else {
          backend = new Backend(process, message.url);
          resolve(backend);
        }
      });
    });
  }

  private constructor(process: ChildProcessWithoutNullStreams, url: string) {
    this.#process = process;
    this.url = url;
  }

  token(
    sub = "alice",
    claims: { ttl?: number; jobs?: string[]; feeds?: string[] } = {},
  ): Promise<string> {
    return this.#call("token", { sub, ...claims });
  }

  send(task: string, args: unknown[] = [], options: SendOptions = {}): Promise<string> {
    return this.#call("send", { task, args, ...options });
  }

  /** Revoke a job, and terminate it if it runs. */
  revoke(jobId: string): Promise<void> {
    return this.#call("revoke", { job_id: jobId, terminate: true });
  }

  gate(): Promise<string> {
    return this.#call("gate");
  }

  openGate(gate: string): Promise<void> {
    return this.#call("open_gate", { gate });
  }

  emit(jobId: string, event: string, data: object, times = 1): Promise<void> {
    return this.#call("emit", { job_id: jobId, event, times, ...data });
  }

  forgetRecord(jobId: string): Promise<void> {
    return this.#call("forget_record", { job_id: jobId });
  }

  killServer(): Promise<void> {
    return this.#call("kill_server");
  }

  stopServer(): Promise<void> {
    return this.#call("stop_server");
  }

  startServer(): Promise<void> {
    return this.#call("start_server");
  }

  killValkey(): Promise<void> {
    return this.#call("kill_valkey");
  }

  startValkey(): Promise<void> {
    return this.#call("start_valkey");
  }

  /** Return how often the server's log contains a text. */
  logged(text: string): Promise<number> {
    return this.#call("logged", { text });
  }

  async connections(): Promise<number> {
    const response = await fetch(`${this.url}/paths`);
    return ((await response.json()) as { connections: number }).connections;
  }

  handleReply({ id, value, error }: Reply): void {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if (error === undefined) {
      pending?.resolve(value);
    } else {
      pending?.reject(new Error(error));
    }
  }

  fail(error: Error): void {
    for (const pending of this.#pending.values()) {
      pending.reject(error);
    }
  }

  /** Stop all processes. */
  stop(): Promise<void> {
    return new Promise((resolve) => {
      this.#process.on("exit", () => resolve());
      this.#process.stdin.end();
    });
  }

  #call<T>(name: string, options: object = {}): Promise<T> {
    this.#number += 1;
    const id = this.#number;
    return new Promise<T>((resolve, reject) => {
      this.#pending.set(id, { resolve: (value) => resolve(value as T), reject });
      this.#process.stdin.write(`${JSON.stringify({ ...options, id, do: name })}\n`);
    });
  }
}

export interface SendOptions {
  owner?: string;
  title?: string;
  tags?: string[];
  options?: Record<string, unknown>;
}
