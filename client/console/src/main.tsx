import "./styles/index.css";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { watchMoves } from "./lib/moves";
import { watchShortcuts } from "./lib/shortcuts";
import { startTheme } from "./lib/theme";
import { startSession } from "./session/session";
import { Crash } from "./ui/Crash";

startTheme();
watchMoves();
watchShortcuts();
startSession();
const root = document.getElementById("root");
if (root) {
  createRoot(root).render(
    <StrictMode>
      <Crash>
        <App />
      </Crash>
    </StrictMode>,
  );
}
