"""The rights of subjects to feeds."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable

from jobcast.events import Refusal
from jobcast.feeds import MINE, OWNER_PREFIX, is_feed
from jobcast.realtime.authorization import Authorizer
from jobcast.realtime.connections import Connection, Connections
from jobcast.realtime.rights import FEED_NOT_ALLOWED, NotAllowed, SubjectRights
from jobcast.targets import LIST, FeedTarget
from jobcast.tokens import Subject


class FeedRights:
    """The rights of subjects to feeds.

    Args:
        authorizer: checks a subject's right.
        rights: checks the rights of several connections.
        connections: the connections of the process.
        check_revocations: raises TokenError for a subject whose token was revoked.
        on_ended: called with the connection, the feed and the reason when a right ends.
    """

    def __init__(
        self,
        authorizer: Authorizer,
        rights: SubjectRights,
        connections: Connections,
        check_revocations: Callable[[Subject], Awaitable[None]],
        on_ended: Callable[[Connection, str, Refusal], None],
    ) -> None:
        self._authorizer = authorizer
        self._rights = rights
        self._connections = connections
        self._check_revocations = check_revocations
        self._on_ended = on_ended

    async def check(self, subject: Subject, name: str) -> str:
        """Return the feed's name in the store if a subject may list the feed.

        Raises:
            NotAllowed: the subject may not list the feed.
            TokenError: the subject's token was revoked since its verification.
            TransportUnavailable: the process does not know the revoked tokens yet.
            FunctionFailed, FunctionTimeout: ``JOBCAST_AUTHORIZE`` did not decide.
        """
        await self._check_revocations(subject)
        feed = _stored_name(name, subject)
        if feed is None or not await self._may_list(subject, name):
            raise NotAllowed(FEED_NOT_ALLOWED)
        return feed

    async def review(self, connection: Connection) -> None:
        """End the rights to feeds that a connection's token does not allow.

        Raises:
            FunctionFailed, FunctionTimeout: ``JOBCAST_AUTHORIZE`` did not decide.
        """
        followers = {} if connection.feeds is None else dict(connection.feeds.followers)
        allowed = await asyncio.gather(
            *(self._may_list(connection.subject, name) for name in followers)
        )
        for (name, follower), is_allowed in zip(followers.items(), allowed, strict=True):
            if not is_allowed and connection.follower_of(name) is follower:
                self._on_ended(connection, name, FEED_NOT_ALLOWED)

    async def reauthorize(self) -> None:
        """Check the rights to all followed feeds, and end those that are no longer given."""
        followed: defaultdict[str, list[str]] = defaultdict(list)
        for connection in self._connections:
            for name in () if connection.feeds is None else connection.feeds.followers:
                if name != MINE:
                    followed[name].append(connection.sid)
        for name, sids in followed.items():
            refused = await self._rights.refused(FeedTarget(name=name), sids)
            for sid, refusal in refused.items():
                connected = self._connections.get(sid)
                if connected is not None and connected.follower_of(name) is not None:
                    self._on_ended(connected, name, refusal)

    async def _may_list(self, subject: Subject, name: str) -> bool:
        if name == MINE:  # no rule is asked: a job of the feed is the subject's own
            return True
        return await self._authorizer.allows(subject, LIST, FeedTarget(name=name))


def _stored_name(name: str, subject: Subject) -> str | None:
    """Return the name that a feed has in the store; None if the store can have no such feed."""
    feed = OWNER_PREFIX + subject.sub if name == MINE else name
    # The store encodes names as UTF-8, which has no lone surrogates.
    is_text = feed.encode("utf-8", "replace").decode() == feed
    return feed if is_text and is_feed(feed) else None
