import { type ReactElement, type ReactNode, useState } from "react";
import { isRecord } from "../lib/untrusted";

const OPEN_DEPTH = 2; // levels that are initially open
const OPEN_SIZE = 40; // entries; larger values are initially closed
const PAGE = 200; // entries shown at once

interface Props {
  readonly value: unknown;
  readonly depth: number;
  readonly label?: ReactNode;
}

/** JSON as a collapsible tree. */
export function JsonView({ value, depth, label = null }: Props): ReactElement {
  if (Array.isArray(value)) {
    const entries = value.map((one, index) => [String(index), one] as const);
    return <Branch entries={entries} brackets="[]" depth={depth} label={label} />;
  }
  if (isRecord(value)) {
    return <Branch entries={Object.entries(value)} brackets="{}" depth={depth} label={label} />;
  }
  return (
    <div className="leaf">
      {label}
      <span data-type={value === null ? "null" : typeof value}>{JSON.stringify(value)}</span>
    </div>
  );
}

interface BranchProps {
  readonly entries: readonly (readonly [string, unknown])[];
  readonly brackets: "[]" | "{}";
  readonly depth: number;
  readonly label: ReactNode;
}

function Branch({ entries, brackets, depth, label }: BranchProps): ReactElement {
  const [open, close] = [brackets[0], brackets[1]];
  const [isOpen, setOpen] = useState(depth < OPEN_DEPTH && entries.length <= OPEN_SIZE);
  const [shown, setShown] = useState(PAGE);
  if (entries.length === 0) {
    return (
      <div className="leaf">
        {label}
        {brackets}
      </div>
    );
  }
  return (
    <details open={isOpen} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        {label}
        {open}
        {isOpen ? null : (
          <span className="faint">
            {" "}
            … {entries.length} {close}
          </span>
        )}
      </summary>
      {isOpen ? (
        <div className="branch">
          {entries.slice(0, shown).map(([key, value]) => (
            <JsonView
              key={key}
              value={value}
              depth={depth + 1}
              label={<Key name={key} of={brackets} />}
            />
          ))}
          {entries.length > shown ? (
            <button type="button" className="button" onClick={() => setShown(shown + PAGE)}>
              Show more of {entries.length}
            </button>
          ) : null}
        </div>
      ) : null}
      {isOpen ? <div className="leaf">{close}</div> : null}
    </details>
  );
}

function Key({ name, of }: { readonly name: string; readonly of: "[]" | "{}" }): ReactElement {
  return of === "{}" ? (
    <>
      <span className="key">{name}</span>:{" "}
    </>
  ) : (
    <>
      <span className="faint">{name}</span>{" "}
    </>
  );
}
