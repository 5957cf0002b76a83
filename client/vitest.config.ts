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
          execArgv: ["--expose-gc"], // for the garbage collection test
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
