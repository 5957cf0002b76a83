import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const PYTHON = process.env.JOBCAST_TEST_PYTHON ?? `${ROOT}/.venv/bin/python`;

interface Answer {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: string;
}

interface Asked {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** The processes that `backend.py` starts. */
export class Backend {
  readonly url: string;
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #asked = new Map<number, Asked>();
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
        const error = new Error(`the backend ended with ${code}:\n${errors}`);
        reject(error);
        backend?.fail(error);
      });
      createInterface(process.stdout).on("line", (line) => {
        const message = JSON.parse(line);
        if (backend) {
          backend.answer(message);
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

  token(sub = "alice", claims: { ttl?: number; jobs?: string[] } = {}): Promise<string> {
    return this.#ask("token", { sub, ...claims });
  }

  send(task: string, args: unknown[] = [], options: SendOptions = {}): Promise<string> {
    return this.#ask("send", { task, args, ...options });
  }

  /** Ends a job, also one that runs. */
  revoke(jobId: string): Promise<void> {
    return this.#ask("revoke", { job_id: jobId, terminate: true });
  }

  gate(): Promise<string> {
    return this.#ask("gate");
  }

  openGate(gate: string): Promise<void> {
    return this.#ask("open_gate", { gate });
  }

  emit(jobId: string, event: string, data: object, times = 1): Promise<void> {
    return this.#ask("emit", { job_id: jobId, event, times, ...data });
  }

  forgetRecord(jobId: string): Promise<void> {
    return this.#ask("forget_record", { job_id: jobId });
  }

  killServer(): Promise<void> {
    return this.#ask("kill_server");
  }

  stopServer(): Promise<void> {
    return this.#ask("stop_server");
  }

  startServer(): Promise<void> {
    return this.#ask("start_server");
  }

  killValkey(): Promise<void> {
    return this.#ask("kill_valkey");
  }

  startValkey(): Promise<void> {
    return this.#ask("start_valkey");
  }

  /** How often the server's log says something. */
  logged(text: string): Promise<number> {
    return this.#ask("logged", { text });
  }

  async connections(): Promise<number> {
    const response = await fetch(`${this.url}/paths`);
    return ((await response.json()) as { connections: number }).connections;
  }

  answer({ id, value, error }: Answer): void {
    const asked = this.#asked.get(id);
    this.#asked.delete(id);
    if (error === undefined) {
      asked?.resolve(value);
    } else {
      asked?.reject(new Error(error));
    }
  }

  fail(error: Error): void {
    for (const asked of this.#asked.values()) {
      asked.reject(error);
    }
  }

  /** Ends everything that it started. */
  stop(): Promise<void> {
    return new Promise((resolve) => {
      this.#process.on("exit", () => resolve());
      this.#process.stdin.end();
    });
  }

  #ask<T>(name: string, options: object = {}): Promise<T> {
    this.#number += 1;
    const id = this.#number;
    return new Promise<T>((resolve, reject) => {
      this.#asked.set(id, { resolve: (value) => resolve(value as T), reject });
      this.#process.stdin.write(`${JSON.stringify({ ...options, id, do: name })}\n`);
    });
  }
}

export interface SendOptions {
  owner?: string;
  options?: Record<string, unknown>;
}
