import type { JobState } from "@jobcast/client";
import type { ReactElement, ReactNode } from "react";
import { formatDateTime } from "../lib/formatTime";
import { listHash } from "../lib/route";
import { DEFAULT_VIEW, type View } from "../lib/view";

interface Props {
  readonly job: JobState;
  readonly view: View;
}

/** What the job is. A tag, a task and an owner lead to the list of their jobs. */
export function JobAbout({ job, view }: Props): ReactElement | null {
  const { task, tags, owner, queue, worker, createdAt } = job;
  const linkTo = (change: Partial<View>): string =>
    listHash({ ...DEFAULT_VIEW, feed: view.feed, ...change });
  return (
    <section className="panel about" aria-labelledby="about-title">
      <h2 id="about-title">About</h2>
      <dl>
        {task === null ? null : (
          <Fact name="Task">
            <a className="mono" href={linkTo({ task })}>
              {task}
            </a>
          </Fact>
        )}
        {tags.length === 0 ? null : (
          <Fact name="Tags">
            <ul className="tags" aria-label="Tags">
              {tags.map((tag) => (
                <li key={tag}>
                  <a className="tag" href={linkTo({ tag })}>
                    {tag}
                  </a>
                </li>
              ))}
            </ul>
          </Fact>
        )}
        {owner === null ? null : (
          <Fact name="Owner">
            <a href={linkTo({ owner })}>{owner}</a>
          </Fact>
        )}
        {queue === null ? null : <Fact name="Queue">{queue}</Fact>}
        {worker === null ? null : <Fact name="Worker">{worker}</Fact>}
        {createdAt === null ? null : (
          <Fact name="Sent">
            <time dateTime={createdAt}>{formatDateTime(createdAt)}</time>
          </Fact>
        )}
        <Fact name="Id">
          <span className="mono">{job.jobId}</span>
        </Fact>
      </dl>
    </section>
  );
}

function Fact({
  name,
  children,
}: {
  readonly name: string;
  readonly children: ReactNode;
}): ReactElement {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
