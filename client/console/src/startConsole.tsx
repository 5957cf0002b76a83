import "./styles/index.css";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { trackNavigation } from "./lib/navigation";
import { syncShortcuts } from "./lib/shortcuts";
import { initTheme } from "./lib/theme";
import { type Site, SiteContext } from "./site";
import { ErrorBoundary } from "./ui/ErrorBoundary";

/** Show the console in the document. */
export function startConsole(site: Site): void {
  initTheme();
  trackNavigation();
  syncShortcuts();
  site.session.start();
  const root = document.getElementById("root");
  if (root) {
    createRoot(root).render(
      <StrictMode>
        <ErrorBoundary>
          <SiteContext value={site}>
            <App />
          </SiteContext>
        </ErrorBoundary>
      </StrictMode>,
    );
  }
}
