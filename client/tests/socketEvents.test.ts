import { io, type Socket } from "socket.io-client";
import { afterEach, beforeEach, expect, expectTypeOf, test } from "vitest";
import type { ClientToServerEvents, ServerToClientEvents } from "../src/index.js";
import { TestServer } from "./server.js";

let server: TestServer;

beforeEach(async () => {
  server = await TestServer.start();
});

afterEach(() => server.stop());

test("a typed socket of socket.io-client follows a job", async () => {
  const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io(server.url, {
    auth: { token: "token" },
    transports: ["websocket"],
  });
  const progress = new Promise<number | null>((resolve) => {
    socket.on("job_progress", (message) => {
      expectTypeOf(message.percentage).toEqualTypeOf<number | null>();
      resolve(message.percentage);
    });
  });
  // @ts-expect-error there is no such event
  socket.on("job_finished", () => {});
  const answer = await socket.emitWithAck("join_job", { job_id: "a" });
  expect(answer.ok).toBe(true);
  if (answer.ok) {
    expectTypeOf(answer.seq).toEqualTypeOf<number>();
  } else {
    expectTypeOf(answer.code).toEqualTypeOf<string>();
  }
  // @ts-expect-error a request has an acknowledgement, which may be a refusal
  socket.emit("leave_job", { job_id: "b" });
  server.publish("a", "job_progress", { percentage: 3 });
  expect(await progress).toBe(3);
  socket.close();
});
