import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["tests/*.test.{ts,tsx}"],
          testTimeout: 120_000,
          pool: "forks",
          // For the test of garbage collection, and for that of React Native with Node 20.
          execArgv: ["--expose-gc", "--experimental-websocket"],
        },
      },
      {
        test: {
          name: "live",
          include: ["tests/live/*.test.ts"],
          fileParallelism: false,
          testTimeout: 300_000,
          hookTimeout: 300_000, // a store, a server and a worker start one after the other
        },
      },
    ],
  },
});
