"""Events and requests: job ids, rooms, packets and refusals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from socketio.packet import EVENT, Packet

from jobcast.errors import InvalidJobId, InvalidMessage
from jobcast.events import (
    INFO,
    JOB_EVENTS,
    JOB_ID_MAX_LENGTH,
    JOB_ID_PATTERN,
    LEVELS,
    LOG,
    MAX_TAGS,
    NO_INFO,
    OPEN_VALUE_MAX_LENGTH,
    PROGRESS,
    REASONS,
    RUN_STATUSES,
    STATUS,
    TAG_MAX_LENGTH,
    TERMINAL,
    TERMINAL_STATES,
    TITLE_MAX_LENGTH,
    Cursor,
    JobComplete,
    JobError,
    JobEvent,
    JobGap,
    JobInfo,
    JobInfoUpdate,
    JobLog,
    JobProgress,
    JobStatus,
    Joined,
    JoinJob,
    Kind,
    Refusal,
    State,
    TokenExpiring,
    check_job_id,
    check_published,
    decode_info,
    encode_info,
    info_of,
    job_of,
    now,
    packet_head,
    packet_tail,
    parse_event,
    parse_request,
    payload_of,
    room_of,
)
from jobcast.protocol import packet_of, parse_acknowledgement
from jobcast.transports.base import Outgoing

job_ids = st.from_regex(JOB_ID_PATTERN)
seqs = st.integers(min_value=1, max_value=2**53 - 1)
times = st.datetimes(timezones=st.just(UTC))
texts = st.text()  # no lone surrogates, which UTF-8 cannot encode
open_values = st.text(min_size=1, max_size=OPEN_VALUE_MAX_LENGTH)
unset = st.just(msgspec.UNSET)
numbers = st.integers(-(2**53), 2**53) | st.floats(-1e308, 1e308)
amounts = st.floats(0, 1e308)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=10,
)
titles = st.text(min_size=1, max_size=TITLE_MAX_LENGTH)
tags = st.lists(
    st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=TAG_MAX_LENGTH),
    min_size=1,
    max_size=MAX_TAGS,
    unique=True,
).map(tuple)
infos = st.builds(
    JobInfo,
    created_at=st.none() | times,
    task=st.none() | titles,
    title=st.none() | titles,
    tags=st.just(()) | tags,
    queue=st.none() | titles,
    worker=st.none() | titles,
    parent=st.none() | job_ids,
    owner=st.none() | titles,
)
stamps: dict[str, Any] = {"job_id": job_ids, "timestamp": times}


def is_open_status(value: str) -> bool:
    return value not in {"pending", "complete", "error"}


statuses = st.builds(
    JobStatus,
    **stamps,
    status=st.sampled_from(RUN_STATUSES) | open_values.filter(is_open_status),
    task=unset | texts,
    attempt=unset | st.integers(1, 2**31),
    retry_at=unset | times,
    error=unset | texts,
    message=unset | texts,
    title=unset | titles,
    tags=unset | tags,
    queue=unset | texts,
    worker=unset | texts,
    parent=unset | job_ids,
    created_at=unset | times,
)
updates = st.builds(JobInfoUpdate, **stamps, title=unset | titles, tags=unset | tags)
progresses = st.builds(
    JobProgress,
    **stamps,
    percentage=st.none() | st.floats(0, 100),
    message=unset | texts,
    current=unset | numbers,
    total=unset | numbers,
    stage=unset | texts,
    rate=unset | amounts,
    eta=unset | amounts,
)
logs = st.builds(JobLog, **stamps, level=st.sampled_from(LEVELS) | open_values, message=texts)
completions = st.builds(JobComplete, **stamps, result=json_values)
errors = st.builds(
    JobError,
    **stamps,
    error=texts,
    message=texts,
    reason=st.sampled_from(REASONS) | open_values,
)
events = st.one_of(statuses, updates, progresses, logs, completions, errors)

EXAMPLES: Final[list[tuple[JobEvent, Kind, State | None]]] = [
    (JobStatus(job_id="1", status="queued"), STATUS, "queued"),
    (JobStatus(job_id="1", status="started"), STATUS, "started"),
    (JobStatus(job_id="1", status="retrying"), STATUS, "retrying"),
    (JobStatus(job_id="1", status="stalled"), STATUS, "stalled"),
    (JobStatus(job_id="1", status="cancelling", by="alice"), STATUS, "cancelling"),
    (JobInfoUpdate(job_id="1", title="March report"), INFO, None),
    (JobProgress(job_id="1", percentage=1), PROGRESS, None),
    (JobLog(job_id="1", level="info", message="half-way"), LOG, None),
    (JobComplete(job_id="1", result=None), TERMINAL, "complete"),
    (JobError(job_id="1", error="E", message="", reason="failure"), TERMINAL, "error"),
    (JobError(job_id="1", error="E", message="", reason="cancelled"), TERMINAL, "cancelled"),
    (JobError(job_id="1", error="E", message="", reason="revoked"), TERMINAL, "cancelled"),
]

BAD_JOB_IDS: Final = [
    pytest.param("", id="empty"),
    pytest.param("a" * (JOB_ID_MAX_LENGTH + 1), id="too long"),
    pytest.param("a" * 10_000, id="huge"),
    pytest.param("4f1c\n", id="trailing newline"),
    pytest.param("4f\x001c", id="control character"),
    pytest.param("4f 1c", id="space"),
    pytest.param("{4f1c}", id="braces"),
    pytest.param("*", id="wildcard"),
    pytest.param('4f"1c', id="quote"),
    pytest.param("café", id="letter outside of ASCII"),
    pytest.param("٤٢", id="digits outside of ASCII"),
    pytest.param("\ud800", id="surrogate"),
]

NO_STRINGS: Final = [42, None, True, ["4f1c"], {"id": "4f1c"}, b"4f1c", 1.5]


def decode(packet: str) -> Any:
    """Return the data that python-socketio decodes from an Engine.IO message packet."""
    assert packet[0] == "4"
    decoded = Packet(encoded_packet=packet[1:])
    assert decoded.packet_type == EVENT
    assert decoded.namespace in (None, "/")
    assert decoded.id is None
    return decoded.data


def packet_of_event(event: JobEvent, seq: int) -> str:
    """Return the packet of an event that is the first of its record."""
    info = info_of(event) if event.kind == INFO else NO_INFO
    return packet_head(event) + packet_tail(seq, info=info)


@given(job_ids)
def test_job_of_inverts_room_of(job_id: str) -> None:
    assert check_job_id(job_id) == job_id
    assert job_of(room_of(job_id)) == job_id


def test_room_name_has_the_documented_prefix() -> None:
    assert room_of("42") == "job_42"


@pytest.mark.parametrize("job_id", BAD_JOB_IDS)
def test_invalid_job_id_is_refused(job_id: str) -> None:
    with pytest.raises(InvalidJobId, match="1 to 128 characters out of"):
        check_job_id(job_id)
    with pytest.raises(InvalidJobId):
        room_of(job_id)
    assert job_of(f"job_{job_id}") is None
    with pytest.raises(InvalidMessage):
        parse_request("join_job", {"job_id": job_id}, JoinJob)


@pytest.mark.parametrize("job_id", NO_STRINGS)
def test_job_id_of_another_type_is_refused(job_id: object) -> None:
    with pytest.raises(InvalidJobId, match=f"a string, not {type(job_id).__name__}"):
        check_job_id(job_id)
    with pytest.raises(InvalidMessage):
        parse_request("join_job", {"job_id": job_id}, JoinJob)


@given(st.text() | job_ids)
def test_all_functions_accept_the_same_job_ids(job_id: str) -> None:
    try:
        check_job_id(job_id)
    except InvalidJobId:
        assert job_of(f"job_{job_id}") is None
        with pytest.raises(InvalidMessage):
            parse_request("join_job", {"job_id": job_id}, JoinJob)
    else:
        assert job_of(f"job_{job_id}") == job_id
        assert parse_request("join_job", {"job_id": job_id}, JoinJob).job_id == job_id


@pytest.mark.parametrize("room", [None, 42, "", "job", "job_", "4f1c", "room_4f1c", "Job_4f1c"])
def test_job_of_returns_none_for_other_rooms(room: object) -> None:
    assert job_of(room) is None


@given(events, seqs)
def test_socketio_can_decode_packets(event: JobEvent, seq: int) -> None:
    name, payload = decode(packet_of_event(event, seq))
    assert name == event.name
    assert payload == {**msgspec.json.decode(msgspec.json.encode(event)), "seq": seq}


@given(events, seqs)
def test_parse_event_inverts_packet(event: JobEvent, seq: int) -> None:
    name, payload = decode(packet_of_event(event, seq))
    assert parse_event(name, payload) == msgspec.structs.replace(event, seq=seq)


@given(infos, infos, infos)
def test_descriptions_can_be_merged_in_any_grouping(
    first: JobInfo, second: JobInfo, third: JobInfo
) -> None:
    merged = first.updated(second).updated(third)
    assert merged == first.updated(second.updated(third))
    assert merged == NO_INFO.updated(merged).updated(NO_INFO) == merged.updated(merged)
    assert merged.title == (third.title or second.title or first.title)
    assert len(merged.tags) <= MAX_TAGS


@given(infos)
def test_description_survives_its_encoding(info: JobInfo) -> None:
    assert decode_info(encode_info(info)) == info
    assert decode_info(encode_info(info), "bob").owner == "bob"


@given(statuses)
def test_description_of_a_status_has_its_fields(status: JobStatus) -> None:
    info = info_of(status)
    given = {name: value for name in info.fields if (value := getattr(status, name)) is not UNSET}
    assert info.fields == given
    assert info_of(JobLog(job_id="1", level="info", message="x")) == NO_INFO


@given(
    st.builds(
        Joined,
        job_id=job_ids,
        epoch=texts,
        seq=st.integers(0, 2**53 - 1),
        status=st.sampled_from(get_args(State)),
        complete_from=unset | st.integers(2, 2**53 - 1),
    )
    | st.builds(JobGap, job_id=job_ids, after=seqs, before=st.integers(2, 2**53 - 1))
    | st.builds(TokenExpiring, expires_at=times)
)
def test_packet_of_a_message_without_history(message: Joined | JobGap | TokenExpiring) -> None:
    assert decode(packet_of(message)) == [message.name, payload_of(message)]


def test_packet_embeds_an_encoded_result_unchanged() -> None:
    event = JobComplete(job_id="42", result=msgspec.Raw(b'{"rows":[1,2]}'))
    _, payload = decode(packet_head(event) + packet_tail(1))
    assert payload["result"] == {"rows": [1, 2]}


def test_packet_omits_unset_fields() -> None:
    event = JobProgress(job_id="42", percentage=None)
    _, payload = decode(packet_head(event) + packet_tail(1))
    assert payload.keys() == {"job_id", "timestamp", "seq", "percentage"}


@pytest.mark.parametrize(("event", "kind", "state"), EXAMPLES)
def test_each_event_has_its_kind_and_state(
    event: JobEvent, kind: Kind, state: State | None
) -> None:
    assert event.kind == kind
    assert event.state == state
    assert (event.state in TERMINAL_STATES) == (event.kind == TERMINAL)


def test_examples_cover_every_event_kind_and_state() -> None:
    assert {event.name for event, _, _ in EXAMPLES} == set(JOB_EVENTS)
    assert {kind for _, kind, _ in EXAMPLES} == set(get_args(Kind))
    assert {state for _, _, state in EXAMPLES if state} == set(get_args(State)) - {"pending"}


@pytest.mark.parametrize("event", [example[0] for example in EXAMPLES])
def test_event_is_frozen_and_in_utc(event: JobEvent) -> None:
    assert event.timestamp.utcoffset() == timedelta(0)
    assert now() - event.timestamp < timedelta(hours=1)
    with pytest.raises(AttributeError):
        event.job_id = "2"  # type: ignore[misc]


@pytest.mark.parametrize("name", JOB_EVENTS)
@pytest.mark.parametrize("payload", [None, [], "text", 1, {}, {"job_id": ""}])
def test_error_of_an_invalid_payload_names_the_event(name: str, payload: object) -> None:
    with pytest.raises(InvalidMessage, match=f"^{name}: ") as caught:
        parse_event(name, payload)
    assert caught.value.event == name
    assert str(caught.value) == f"{name}: {caught.value.problem}"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"percentage": 101}, "percentage"),
        ({"percentage": -1}, "percentage"),
        ({"percentage": float("nan")}, "percentage"),
        ({"percentage": float("inf")}, "percentage"),
        ({"percentage": "42"}, "percentage"),
        ({"rate": float("nan")}, "rate"),
        ({"eta": -1}, "eta"),
        ({"seq": -1}, "seq"),
        ({"timestamp": "yesterday"}, "timestamp"),
    ],
)
def test_error_names_the_field(changes: dict[str, object], field: str) -> None:
    payload = {"job_id": "42", "percentage": 1, **changes}
    with pytest.raises(InvalidMessage, match=rf"^job_progress: .*(\$\.{field}|RFC3339)"):
        parse_event("job_progress", payload)


@pytest.mark.parametrize("name", ["", "joined", "job_started", "connect", "disconnect"])
def test_unknown_event_name_is_refused(name: str) -> None:
    with pytest.raises(
        InvalidMessage, match="is not an event of a job; expected one of job_status, "
    ) as e:
        parse_event(name, {"job_id": "42"})
    assert e.value.event == name


def test_event_from_another_process_needs_no_seq_and_timestamp() -> None:
    event = parse_event("job_log", {"job_id": "42", "level": "info", "message": "half-way"})
    assert event.seq == 0
    assert event.timestamp.tzinfo is not None


UNKNOWN: Final = [
    (JobStatus(job_id="1", status="pausing"), "status", "queued, started, retrying, stalled"),
    (JobLog(job_id="1", level="notice", message=""), "level", "debug, info, warning, "),
    (JobError(job_id="1", error="E", message="", reason="replaced"), "reason", "failure, revoked"),
]


@pytest.mark.parametrize(("event", "field", "known"), UNKNOWN)
def test_value_of_an_open_list_is_received_and_not_published(
    event: JobEvent, field: str, known: str
) -> None:
    assert parse_event(event.name, payload_of(event)) == event
    value = getattr(event, field)
    problem = rf"^{event.name}: {field} should be one of {known}.*, not '{value}'$"
    with pytest.raises(InvalidMessage, match=problem):
        check_published(event)
    with pytest.raises(InvalidMessage, match=problem):
        Outgoing.of(event)


@pytest.mark.parametrize("event", [example[0] for example in EXAMPLES])
def test_every_known_value_is_published(event: JobEvent) -> None:
    assert check_published(event) is event


@pytest.mark.parametrize("status", ["pausing", "Complete", "pending ", "errors", "error\n"])
def test_unknown_status_does_not_end_a_job(status: str) -> None:
    event = parse_event("job_status", {"job_id": "42", "status": status})
    assert event.state == status
    assert event.state not in TERMINAL_STATES


def test_unknown_reason_ends_a_job() -> None:
    payload = {"job_id": "42", "error": "E", "message": "", "reason": "replaced"}
    event = parse_event("job_error", payload)
    assert (event.kind, event.state) == (TERMINAL, "error")


def test_cursor_of_a_join_is_its_after() -> None:
    after = {"epoch": "e", "seq": 7}
    request = parse_request("join_job", {"job_id": "42", "after": after}, JoinJob)
    assert request.cursor == Cursor(epoch="e", seq=7)
    assert JoinJob(job_id="42").cursor is None


def test_unknown_fields_are_ignored() -> None:
    request = parse_request("join_job", {"job_id": "42", "later": True}, JoinJob)
    assert request == JoinJob(job_id="42")


def test_acknowledgement_is_an_acceptance_or_a_refusal() -> None:
    refusal = Refusal(code="token_subject", message="the token is for another subject")
    assert parse_acknowledgement("refresh_token", payload_of(refusal)) == refusal
    accepted = parse_acknowledgement(
        "refresh_token", {"ok": True, "expires_at": "2026-01-15T10:30:00Z"}
    )
    assert payload_of(accepted) == {"ok": True, "expires_at": "2026-01-15T10:30:00Z"}
    assert getattr(accepted, "expires_at", None) == datetime(2026, 1, 15, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize("payload", [None, [], {}, {"ok": False}, {"ok": True}, {"ok": 0}])
def test_error_of_an_invalid_acknowledgement_names_the_request(payload: object) -> None:
    with pytest.raises(InvalidMessage, match=r"^join_job: "):
        parse_acknowledgement("join_job", payload)
