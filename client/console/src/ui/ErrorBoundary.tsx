import { Component, type ReactNode } from "react";
import { errorMessage } from "../lib/untrusted";

interface Props {
  readonly children: ReactNode;
}

/** Shows an error page if rendering fails. */
export class ErrorBoundary extends Component<Props, { readonly error: unknown }> {
  override state = { error: null };

  static getDerivedStateFromError(error: unknown): { error: unknown } {
    return { error };
  }

  override render(): ReactNode {
    if (this.state.error === null) {
      return this.props.children;
    }
    return (
      <main className="sheet">
        <h1>Something went wrong on this page</h1>
        <p>Your jobs keep running; only this page has stopped. {errorMessage(this.state.error)}</p>
        <button type="button" className="button primary" onClick={() => window.location.reload()}>
          Reload the page
        </button>
      </main>
    );
  }
}
