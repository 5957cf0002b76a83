import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// The realtime process, while the page is developed.
const { JOBCAST_REALTIME: target = "http://127.0.0.1:8000" } = process.env;

export default defineConfig({
  plugins: [react()],
  resolve: {
    // The client's sources: the page is built from a checkout, with nothing built before.
    alias: [
      { find: /^@jobcast\/client$/, replacement: `${import.meta.dirname}/../src/index.ts` },
      { find: /^@jobcast\/client\/react$/, replacement: `${import.meta.dirname}/../src/react.ts` },
    ],
    dedupe: ["react", "react-dom"],
  },
  test: { include: ["tests/**/*.test.ts"], testTimeout: 30_000 },
  server: {
    proxy: {
      // With the browser's Host: the server compares it with the page's origin.
      "/api": { target, changeOrigin: false },
      "/socket.io": { target, changeOrigin: false, ws: true },
    },
  },
  build: {
    outDir: "../../src/jobcast/_console",
    emptyOutDir: true,
    assetsInlineLimit: 0, // the page's policy allows no data: addresses
    modulePreload: { polyfill: false },
    target: "baseline-widely-available",
  },
});
