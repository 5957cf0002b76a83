"""The requests of clients about feeds."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import UNSET, Struct

from jobcast.errors import InvalidMessage
from jobcast.events import Refusal
from jobcast.feeds import (
    FEED_PAGE,
    NO_FILTER,
    FeedFilter,
    FeedLeft,
    JoinFeed,
    JoinFeedAccepted,
    LeaveFeed,
    LeaveFeedAccepted,
)
from jobcast.protocol import ServerMessage
from jobcast.realtime import metrics
from jobcast.realtime.authorization import Authorizer
from jobcast.realtime.connection.budget import Budget
from jobcast.realtime.connection.frames import FrameBatch, notice
from jobcast.realtime.connection.refusals import shown
from jobcast.realtime.connections import Connection, Connections
from jobcast.realtime.feeds.follower import FeedFollower
from jobcast.realtime.feeds.listing import Place
from jobcast.realtime.feeds.pages import page_json, snapshot_packet
from jobcast.realtime.feeds.rights import FeedRights
from jobcast.realtime.feeds.room import FeedRoom
from jobcast.realtime.feeds.rooms import FeedRooms
from jobcast.realtime.feeds.sender import FeedSender
from jobcast.realtime.requests import NOT_AUTHENTICATED, Requests
from jobcast.realtime.rights import FEED_NOT_ALLOWED, NotAllowed, SubjectRights
from jobcast.settings import Settings
from jobcast.tokens import Subject

MAX_FEEDS: Final = 16  # feeds that one connection may follow
EXAMINED: Final = 32  # characters of history that the check of one job against a filter costs

UNAVAILABLE: Final = Refusal(
    code="feeds_unavailable",
    message="this server has no feeds: its transport has none, or JOBCAST_FEED_SIZE is 0",
)
TOO_MANY: Final = Refusal(
    code="too_many_feeds", message=f"a connection may follow {MAX_FEEDS} feeds"
)

logger = logging.getLogger(__name__)


class FeedQuery(Struct, frozen=True):
    """A request for one page of a feed."""

    feed: str
    wanted: FeedFilter
    limit: int
    after: Place | None = None


class FeedService:
    """The feeds that connections follow.

    Args:
        rooms: the feeds of the process.
        settings: the limits.
        authorizer: checks a subject's right.
        rights: checks the rights of several connections.
        connections: the connections of the process.
        requests: refuses requests.
        send: sends a message to a connection.
        check_revocations: raises TokenError for a subject whose token was revoked.
        namespace: the Socket.IO namespace of the packets.
    """

    def __init__(
        self,
        rooms: FeedRooms,
        settings: Settings,
        authorizer: Authorizer,
        rights: SubjectRights,
        connections: Connections,
        requests: Requests,
        send: Callable[[Connection, ServerMessage], None],
        check_revocations: Callable[[Subject], Awaitable[None]],
        namespace: str,
    ) -> None:
        self._rooms = rooms
        self._settings = settings
        self._requests = requests
        self._send = send
        self.rights = FeedRights(
            authorizer, rights, connections, check_revocations, self._right_ended
        )
        self._namespace = namespace

    @property
    def are_available(self) -> bool:
        """Whether the server has feeds."""
        return self._rooms.are_available

    # --- requests ---------------------------------------------------------------------------------

    async def join(self, connection: Connection, request: JoinFeed) -> JoinFeedAccepted | Refusal:
        """Let a connection follow a feed, if its subject may: send pages, then the changes.

        Raises:
            NotAllowed: the subject may not list the feed.
            InvalidMessage: the request asks for older jobs of a feed that is not joined.
            TransportUnavailable: the feed cannot be read.
            FunctionFailed, FunctionTimeout: ``JOBCAST_AUTHORIZE`` did not decide.
        """
        opened = await self.open(connection, request)
        if isinstance(opened, Refusal):
            return opened
        await self.send_pages(connection, opened, request)
        if connection.ended:
            return NOT_AUTHENTICATED
        if not _is_joined(connection, opened):
            raise NotAllowed(FEED_NOT_ALLOWED)
        return JoinFeedAccepted(feed=request.feed, total=opened.room.listing.total(opened.wanted))

    async def open(self, connection: Connection, request: JoinFeed) -> FeedFollower | Refusal:
        """Return the follower for a request, which gets its pages from :meth:`send_pages`.

        Raises:
            NotAllowed, InvalidMessage, TransportUnavailable, FunctionFailed, FunctionTimeout: see
                :meth:`join`.
        """
        name = request.feed
        follower = connection.follower_of(name)
        if request.after is not UNSET and follower is None:
            raise InvalidMessage("join_feed", f"join {name} before asking for older jobs")
        if follower is None and connection.feeds and len(connection.feeds.followers) >= MAX_FEEDS:
            raise NotAllowed(TOO_MANY)
        try:
            feed = await self.check(connection.subject, name)
        except BaseException:
            self._leave(connection, name)
            raise
        retry_after = await connection.budget.afford_history(f"feed {name}")
        if retry_after is not None:
            return self._requests.limited("join_feed", connection.sid, retry_after)
        if request.after is not UNSET and follower is not None:
            return follower
        # A repeated join starts over.
        self._leave(connection, name)
        return await self._follow(connection, request, feed)

    async def check(self, subject: Subject, name: str) -> str:
        """Return the feed's name in the store if a subject may list the feed.

        Raises:
            NotAllowed: the subject may not list the feed, or there are no feeds.
            TokenError: the subject's token was revoked since its verification.
            TransportUnavailable: the process does not know the revoked tokens yet.
            FunctionFailed, FunctionTimeout: ``JOBCAST_AUTHORIZE`` did not decide.
        """
        if not self.are_available:
            raise NotAllowed(UNAVAILABLE)
        return await self.rights.check(subject, name)

    async def leave(self, connection: Connection, request: LeaveFeed) -> LeaveFeedAccepted:
        """Stop following a feed."""
        if self._leave(connection, request.feed):
            logger.info("left feed %s: sub=%s", shown(request.feed), shown(connection.subject.sub))
        return LeaveFeedAccepted(feed=request.feed)

    def leave_all(self, connection: Connection) -> None:
        """Stop following every feed, because a connection has ended."""
        if connection.feeds is not None:
            for name in list(connection.feeds.followers):
                self._leave(connection, name)

    async def send_pages(
        self, connection: Connection, follower: FeedFollower, request: JoinFeed
    ) -> None:
        """Send the newest jobs of a feed, or those after a place, and allow changes afterwards.

        A page is sent when the client has read most of the previous ones. Jobs that change
        meanwhile are in the page as they are then, or follow the last page.

        Raises:
            InvalidMessage: the place is invalid.
        """
        after = None if request.after is UNSET else Place.parse(request.after)
        follower.is_paging = True
        try:
            await self._send_pages(connection, follower, after, request.limit)
        finally:
            follower.is_paging = False
            if follower.has_pending and _is_joined(connection, follower):
                follower.sender.wake()

    async def page(self, subject: Subject, query: FeedQuery, budget: Budget) -> bytes:
        """Return a page of a feed as JSON, and charge it to a budget.

        Raises:
            NotAllowed, TransportUnavailable, FunctionFailed, FunctionTimeout: see :meth:`check`.
        """
        feed = await self.check(subject, query.feed)
        async with self._rooms.use(feed) as room:
            page = room.listing.page(query.wanted, query.after, query.limit)
            body = page_json(query.feed, page, room.listing.total(query.wanted))
            budget.charge_history(len(body) + _search_cost(room, query.wanted))
            return body

    # --- followers --------------------------------------------------------------------------------

    async def _follow(
        self, connection: Connection, request: JoinFeed, feed: str
    ) -> FeedFollower | Refusal:
        async with self._rooms.use(feed) as room:
            if connection.ended:
                return NOT_AUTHENTICATED
            if connection.feeds is None:
                connection.feeds = FeedSender(connection, self._settings, self._namespace)
            wanted = NO_FILTER if request.filter is UNSET else request.filter
            follower = FeedFollower(request.feed, room, wanted, connection.feeds)
            follower.is_paging = True  # until the caller has sent the pages
            connection.feeds.followers[request.feed] = follower
            self._rooms.follow(follower)
        logger.info("joined feed %s: sub=%s", shown(request.feed), shown(connection.subject.sub))
        return follower

    def _right_ended(self, connection: Connection, name: str, refusal: Refusal) -> None:
        self._leave(connection, name)
        self._send(connection, FeedLeft(feed=name, code=refusal.code, message=refusal.message))
        connection.left_feed(name)
        logger.info(
            "left feed %s: sub=%s may no longer list it (%s)",
            shown(name), shown(connection.subject.sub), refusal.code,
        )  # fmt: skip

    def _leave(self, connection: Connection, name: str) -> bool:
        """Stop following a feed. Return False if the connection did not follow it."""
        follower = connection.follower_of(name)
        if follower is None:
            return False
        follower.sender.remove(name)
        self._rooms.leave(follower)
        return True

    async def _send_pages(
        self, connection: Connection, follower: FeedFollower, after: Place | None, limit: int
    ) -> None:
        history_before, reset = connection.history, after is None
        while True:
            await connection.drained()
            if not _is_joined(connection, follower):
                return
            page = follower.next_page(after, min(limit, FEED_PAGE))
            limit -= len(page.entries)
            is_last = page.end is None or limit <= 0
            packet = snapshot_packet(follower.feed, page, reset=reset, last=is_last)
            batch = FrameBatch([notice(packet)], namespace=self._namespace)
            connection.send_history(batch)
            metrics.FEED_DELIVERED.inc(len(page.entries))
            if is_last:
                break
            after, reset = page.end, False
        sent = connection.history - history_before
        connection.budget.charge_history(sent + _search_cost(follower.room, follower.wanted))


def _is_joined(connection: Connection, follower: FeedFollower) -> bool:
    return connection.follower_of(follower.feed) is follower


def _search_cost(room: FeedRoom, wanted: FeedFilter) -> int:
    """Return the cost of a filter, in characters of history: few jobs, or none, may match it."""
    return 0 if wanted == NO_FILTER else EXAMINED * len(room.listing)
