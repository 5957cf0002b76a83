import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  base: "./", // relative, so that the page works at any path
  plugins: [react()],
});
