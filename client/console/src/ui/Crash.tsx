import { Component, type ReactNode } from "react";
import { messageOf } from "../lib/records";

interface Props {
  readonly children: ReactNode;
}

/** A flaw of this page, said instead of an empty one. */
export class Crash extends Component<Props, { readonly error: unknown }> {
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
        <h1>This page has a flaw</h1>
        <p>Your jobs go on: only what shows them has stopped. {messageOf(this.state.error)}</p>
        <button type="button" className="button primary" onClick={() => window.location.reload()}>
          Load it again
        </button>
      </main>
    );
  }
}
