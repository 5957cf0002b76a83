import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// The realtime process during development.
const { JOBCAST_REALTIME: target = "http://127.0.0.1:8000" } = process.env;

export default defineConfig({
  plugins: [react()],
  resolve: {
    // The client's sources, so that the page builds without a prior build of the client.
    alias: [
      { find: /^@jobcast\/client$/, replacement: `${import.meta.dirname}/../src/index.ts` },
      { find: /^@jobcast\/client\/react$/, replacement: `${import.meta.dirname}/../src/react.ts` },
      {
        find: /^@jobcast\/client\/testing$/,
        replacement: `${import.meta.dirname}/../src/testing.ts`,
      },
    ],
    dedupe: ["react", "react-dom"],
  },
  test: { include: ["tests/**/*.test.ts"], testTimeout: 120_000 },
  server: {
    proxy: {
      // Keep the browser's Host header: the server compares it with the page's origin.
      "/api": { target, changeOrigin: false },
      "/socket.io": { target, changeOrigin: false, ws: true },
    },
  },
  base: "./", // the server chooses the path of the page
  build: {
    rollupOptions: { input: ["index.html", "demo.html"] },
    outDir: "../../src/jobcast/_console",
    emptyOutDir: true,
    assetsInlineLimit: 0, // the page's content security policy allows no data: URLs
    modulePreload: { polyfill: false },
    target: "baseline-widely-available",
  },
});
