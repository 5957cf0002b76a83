import "./styles/index.css";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { trackNavigation } from "./lib/navigation";
import { syncShortcuts } from "./lib/shortcuts";
import { initTheme } from "./lib/theme";
import { startSession } from "./session/session";
import { ErrorBoundary } from "./ui/ErrorBoundary";

initTheme();
trackNavigation();
syncShortcuts();
startSession();
const root = document.getElementById("root");
if (root) {
  createRoot(root).render(
    <StrictMode>
      <ErrorBoundary>
        <App />
      </ErrorBoundary>
    </StrictMode>,
  );
}
