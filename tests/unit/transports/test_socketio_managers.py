"""The bookkeeping of python-socketio's rooms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import socketio
from bidict import bidict
from hypothesis import given
from hypothesis import strategies as st
from socketio.async_manager import AsyncManager

from jobcast.errors import InvalidMessage
from jobcast.transports import open_manager
from jobcast.transports.socketio_managers import job_event

CLIENTS = st.sampled_from(["a", "b", "c"])
ROOMS = st.sampled_from(["job_1", "job_2", "others"])
NAMESPACES = st.sampled_from(["/", "/jobs"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("connect"), CLIENTS, NAMESPACES),
        st.tuples(st.just("enter"), CLIENTS, NAMESPACES, ROOMS),
        st.tuples(st.just("leave"), CLIENTS, NAMESPACES, ROOMS),
        st.tuples(st.just("close"), CLIENTS, NAMESPACES, ROOMS),
        st.tuples(st.just("pre_disconnect"), CLIENTS, NAMESPACES),
        st.tuples(st.just("disconnect"), CLIENTS, NAMESPACES),
    )
)


def manager() -> Any:
    return open_manager("memory://")


def state_after(manager: Any, steps: list[Any]) -> Any:
    """Return a manager's state after some steps, in python-socketio's own fields."""
    manager.set_server(socketio.AsyncServer(async_mode="asgi"))
    for action, client, namespace, *rooms in steps:
        is_connected = client in manager.rooms.get(namespace, {}).get(None, {})
        match action:
            case "connect" if not is_connected:
                manager.basic_enter_room(client, namespace, None, eio_sid=f"eio-{client}")
                manager.basic_enter_room(client, namespace, client, eio_sid=f"eio-{client}")
                manager.callbacks[client] = {}
            case "enter" if is_connected:
                manager.basic_enter_room(client, namespace, rooms[0])
            case "leave" if is_connected:
                manager.basic_leave_room(client, namespace, rooms[0])
            case "close":
                manager.basic_close_room(rooms[0], namespace)
            case "pre_disconnect" if is_connected:
                manager.pre_disconnect(client, namespace)
            case "disconnect":
                manager.basic_disconnect(client, namespace)
    return manager.rooms, manager.callbacks, manager.pending_connect, manager.pending_disconnect


@given(STEPS)
def test_rooms_match_python_socketios_own(steps: list[Any]) -> None:
    ours = manager()
    assert state_after(ours, steps) == state_after(AsyncManager(), steps)
    for client in "abc":
        for namespace in ("/", "/jobs"):
            ours.basic_disconnect(client, namespace)
    assert (ours.rooms, ours._entered) == ({}, {})


def test_disconnect_does_not_search_the_rooms_of_other_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten thousand clients may disconnect at once."""
    ours = manager()
    state_after(ours, [("connect", f"{number}", "/") for number in range(100)])
    lookups: list[object] = []

    def recording(contains_sid: Callable[[bidict[Any, Any], object], bool]) -> Any:
        def contains(room: bidict[Any, Any], sid: object) -> bool:
            lookups.append(sid)
            return contains_sid(room, sid)

        return contains

    monkeypatch.setattr(bidict, "__contains__", recording(bidict.__contains__))
    ours.basic_disconnect("50", "/")
    assert len(lookups) < 10
    assert "50" not in ours.rooms["/"]


@pytest.mark.parametrize(
    ("event", "data", "problem"),
    [
        ("job_status", {"status": "pausing"}, "status should be one of queued, started, "),
        ("job_log", {"level": "INFO", "message": ""}, "level should be one of debug, info, "),
        (
            "job_error",
            {"error": "E", "message": "", "reason": "bad luck"},
            "reason should be one of failure, revoked, ",
        ),
        ("job_progress", {"percentage": 1, "message": None}, "Expected `str`, got `null`"),
    ],
)
def test_emit_to_a_jobs_room_refuses_values_that_are_not_published(
    event: str, data: dict[str, object], problem: str
) -> None:
    with pytest.raises(InvalidMessage, match=f"^{event}: {problem}"):
        job_event(event, data, "job_42")
