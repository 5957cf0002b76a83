"""Pages of feeds as packets and as JSON documents, made of summaries that are already encoded."""

from __future__ import annotations

from jobcast.realtime.feeds.listing import Page, quoted


def snapshot_packet(feed: str, page: Page, *, reset: bool, last: bool) -> str:
    """Return the Socket.IO packet of a ``feed_snapshot``.

    Args:
        feed: the name by which the client joined the feed.
        page: the jobs.
        reset: whether the client has to clear its list first.
        last: whether no further page follows.
    """
    fields = [f'"feed":{quoted(feed)}', _jobs(page)]
    if reset:
        fields.append('"reset":true')
    if last:
        fields.append('"last":true')
        fields += _cursor(page)
    return f'42["feed_snapshot",{{{",".join(fields)}}}]'


def page_json(feed: str, page: Page, total: int) -> bytes:
    """Return the JSON document of a page, as the HTTP interface has it."""
    fields = [f'"feed":{quoted(feed)}', _jobs(page), f'"total":{total}', *_cursor(page)]
    return f"{{{','.join(fields)}}}".encode()


def _jobs(page: Page) -> str:
    return f'"jobs":[{",".join(entry.text for entry in page.entries)}]'


def _cursor(page: Page) -> list[str]:
    return [] if page.end is None else [f'"cursor":{quoted(page.end.cursor)}']
