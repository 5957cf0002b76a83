import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  base: "./", // the page works wherever it is put
  plugins: [react()],
});
