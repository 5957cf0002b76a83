import type { ReactElement } from "react";
import { omissionText } from "../lib/resultSummary";
import { CopyButton } from "../ui/CopyButton";
import { JsonView } from "./JsonView";

export function ResultPanel({ result }: { readonly result: unknown }): ReactElement {
  const omitted = omissionText(result);
  return (
    <section className="panel" aria-labelledby="result-title">
      <div className="panel-top">
        <h2 id="result-title">Result</h2>
        {omitted === null ? (
          <CopyButton label="Copy the result" text={() => JSON.stringify(result, null, 2)} />
        ) : null}
      </div>
      {omitted === null ? (
        <div className="json">
          <JsonView value={result} depth={0} />
        </div>
      ) : (
        <p>{omitted} The task's public_result decides which part of a result is shown.</p>
      )}
    </section>
  );
}
