"""The protocol document, the JSON Schema, the examples and the Python types agree."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
import pytest
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator

from jobcast.errors import InvalidMessage
from jobcast.events import (
    JOB_EVENTS,
    PROTOCOL_VERSION,
    TOKEN_MAX_LENGTH,
    Closing,
    Cursor,
    Draining,
    Hello,
    JobGap,
    Joined,
    JoinJob,
    Left,
    Level,
    Reason,
    Refusal,
    RunStatus,
    State,
    TokenExpiring,
    parse_event,
    parse_request,
)
from jobcast.feeds import FEED_EVENTS, FeedFilter, JobSummary
from jobcast.protocol import ACKNOWLEDGEMENTS, REQUESTS, parse_acknowledgement

PROTOCOL: Final = Path(__file__).resolve().parents[2] / "protocol"
SCHEMA: Final[dict[str, Any]] = json.loads((PROTOCOL / "events.schema.json").read_text("utf-8"))
DEFINITIONS: Final[dict[str, Any]] = SCHEMA["$defs"]
MESSAGES: Final = [ref["$ref"].rpartition("/")[2] for ref in SCHEMA["anyOf"]]
WORDS: Final = (PROTOCOL / "PROTOCOL.md").read_text("utf-8")

OTHERS: Final[Mapping[str, type[msgspec.Struct]]] = {
    **{cls.name: cls for cls in (Closing, Draining, Hello, JobGap, Joined, Left, TokenExpiring)},
    **FEED_EVENTS,
}

# The struct of each definition in the schema.
STRUCTS: Final[Mapping[str, type[msgspec.Struct]]] = {
    **JOB_EVENTS,
    **OTHERS,
    **REQUESTS,
    "cursor": Cursor,
    "refusal": Refusal,
    "joinAccepted": ACKNOWLEDGEMENTS["join_job"],
    "leaveAccepted": ACKNOWLEDGEMENTS["leave_job"],
    "cancelAccepted": ACKNOWLEDGEMENTS["cancel_job"],
    "joinFeedAccepted": ACKNOWLEDGEMENTS["join_feed"],
    "leaveFeedAccepted": ACKNOWLEDGEMENTS["leave_feed"],
    "feedFilter": FeedFilter,
    "jobSummary": JobSummary,
    "tokenAccepted": ACKNOWLEDGEMENTS["refresh_token"],
}

# Has no struct: python-socketio builds it from the exception that refuses a connection.
WITHOUT_STRUCT: Final = {"connect_error"}

# Always on the wire, although the structs have defaults: an event exists before the store assigns
# its ``seq``, and events that other processes emit to a job's room have neither.
STAMPS: Final = {"seq", "timestamp", "ok"}

# Invalid examples that the structs accept and only the JSON Schema refuses.
LENIENT: Final = {
    "job_complete-without-seq",
    "job_log-seq-zero",
    "job_log-timestamp-other-zone",
    "job_log-without-seq",
    "job_log-without-timestamp",
}


def examples(folder: str, *, without: Collection[str] = ()) -> list[Any]:
    """Return the name and payload of each example, as pytest parameters."""
    loaded = {
        path.stem: json.loads(path.read_text("utf-8"))
        for path in sorted((PROTOCOL / "examples" / folder).glob("*.json"))
    }
    return [
        pytest.param(example["message"], example["payload"], id=stem)
        for stem, example in loaded.items()
        if example["message"] not in without
    ]


def known_future() -> list[Any]:
    """Return the examples of the future of messages that exist in this version."""
    return [example for example in examples("future") if example.values[0] in MESSAGES]


def names(folder: str) -> set[str]:
    return {parameter.values[0] for parameter in examples(folder)}


def valid_payloads(name: str) -> list[Any]:
    return [parameter.values[1] for parameter in examples("valid") if parameter.values[0] == name]


def validator(name: str) -> Validator:
    return Draft202012Validator({**SCHEMA, "anyOf": [{"$ref": f"#/$defs/{name}"}]})


def parse(name: str, payload: object) -> msgspec.Struct:
    """Return the parsed message. Raise InvalidMessage or msgspec.ValidationError."""
    request, _, is_acknowledgement = name.partition(".")
    if is_acknowledgement:
        return parse_acknowledgement(request, payload)
    if name in JOB_EVENTS:
        return parse_event(name, payload)
    if name in REQUESTS:
        return parse_request(name, payload, REQUESTS[name])
    return msgspec.convert(payload, OTHERS[name])


def on_the_wire(message: msgspec.Struct) -> Any:
    return json.loads(msgspec.json.encode(message))


def known_values(name: str) -> tuple[str, ...]:
    return tuple(DEFINITIONS[name]["examples"])


def test_schema_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"].endswith(f":{PROTOCOL_VERSION}")


@pytest.mark.parametrize(("name", "payload"), examples("valid"))
def test_schema_accepts_valid_example(name: str, payload: Any) -> None:
    validator(name).validate(payload)


@pytest.mark.parametrize(("name", "payload"), examples("invalid"))
def test_schema_refuses_invalid_example(name: str, payload: Any) -> None:
    assert not validator(name).is_valid(payload)


@pytest.mark.parametrize(("name", "payload"), examples("valid", without=WITHOUT_STRUCT))
def test_valid_example_survives_a_round_trip(name: str, payload: Any) -> None:
    message = parse(name, payload)
    again = on_the_wire(message)
    known = {field.name for field in msgspec.structs.fields(message)}
    assert {key: again[key] for key in payload if key in known} == {
        key: value for key, value in payload.items() if key in known
    }
    validator(name).validate(again)
    assert parse(name, again) == message


@pytest.mark.parametrize(("name", "payload"), known_future())
def test_known_message_of_the_future_keeps_its_values(name: str, payload: Any) -> None:
    validator(name).validate(payload)
    again = on_the_wire(parse(name, payload))
    assert again == {key: value for key, value in payload.items() if key in again}


@pytest.mark.parametrize(("name", "payload"), examples("future", without=MESSAGES))
def test_unknown_event_of_the_future_is_no_job_event(name: str, payload: Any) -> None:
    with pytest.raises(InvalidMessage, match=f"^{name}: is not an event of a job"):
        parse_event(name, payload)


@pytest.mark.parametrize(
    ("definition", "field"),
    [("runStatus", "status"), ("state", "status"), ("level", "level"), ("reason", "reason")],
)
def test_every_open_list_has_an_example_of_the_future(definition: str, field: str) -> None:
    values = {parameter.values[1].get(field) for parameter in known_future()} - {None}
    assert values - set(known_values(definition))


def test_examples_of_the_future_have_an_unknown_event_and_unknown_fields() -> None:
    assert names("future") - set(MESSAGES)
    assert any(
        payload.keys() - {f.name for f in msgspec.structs.fields(parse(name, payload))}
        for name, payload in (parameter.values for parameter in known_future())
    )


@pytest.mark.parametrize(("name", "payload"), examples("invalid", without=WITHOUT_STRUCT))
def test_python_refuses_invalid_example(
    name: str, payload: Any, request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.id in LENIENT:
        parse(name, payload)
        return
    with pytest.raises((InvalidMessage, msgspec.ValidationError)):
        parse(name, payload)


@pytest.mark.parametrize("path", sorted(PROTOCOL.glob("examples/*/*.json")), ids=lambda p: p.stem)
def test_example_file_has_the_expected_form(path: Path) -> None:
    example = json.loads(path.read_text("utf-8"))
    why = set() if path.parent.name == "valid" else {"why"}
    assert set(example) == {"message", "payload"} | why
    assert path.stem.startswith(f"{example['message']}-")


def test_lenient_examples_exist() -> None:
    assert {parameter.id for parameter in examples("invalid")} >= LENIENT


def test_every_message_has_valid_and_invalid_examples() -> None:
    assert names("valid") == set(MESSAGES)
    assert names("invalid") == set(MESSAGES)


@pytest.mark.parametrize(
    ("definition", "values"),
    [
        ("level", get_args(Level)),
        ("reason", get_args(Reason)),
        ("runStatus", get_args(RunStatus)),
        ("state", get_args(State)),
    ],
)
def test_known_values_match_the_schema(definition: str, values: tuple[str, ...]) -> None:
    assert known_values(definition) == values
    assert DEFINITIONS[definition]["$ref"] == "#/$defs/openValue"


@pytest.mark.parametrize("reason", get_args(Reason))
def test_every_reason_has_a_valid_example(reason: str) -> None:
    assert reason in {payload["reason"] for payload in valid_payloads("job_error")}


def test_every_level_has_a_valid_example() -> None:
    assert {payload["level"] for payload in valid_payloads("job_log")} == set(get_args(Level))


def test_python_and_schema_have_the_same_messages() -> None:
    acknowledgements = {f"{name}.ack" for name in ACKNOWLEDGEMENTS}
    assert set(MESSAGES) == {*JOB_EVENTS, *OTHERS, *REQUESTS, *acknowledgements, *WITHOUT_STRUCT}
    assert set(ACKNOWLEDGEMENTS) == set(REQUESTS) - {"connect"}


@pytest.mark.parametrize("name", STRUCTS)
def test_struct_and_definition_have_the_same_fields(name: str) -> None:
    fields = msgspec.structs.fields(STRUCTS[name])
    assert set(DEFINITIONS[name]["properties"]) == {field.encode_name for field in fields}
    required = {field.encode_name for field in fields if field.required}
    stamps = STAMPS & {field.encode_name for field in fields}
    assert set(DEFINITIONS[name]["required"]) == required | stamps


def test_every_definition_is_used() -> None:
    used = set(json.dumps(SCHEMA).split('"#/$defs/')[1:])
    assert {text.partition('"')[0] for text in used} == set(DEFINITIONS)


@pytest.mark.parametrize("name", STRUCTS)
def test_every_field_is_described(name: str) -> None:
    for schema in DEFINITIONS[name]["properties"].values():
        target = DEFINITIONS.get(schema.get("$ref", "").rpartition("/")[2], {})
        assert "description" in schema or "description" in target


@pytest.mark.parametrize("name", ["connect", "refresh_token"])
def test_token_has_an_upper_bound(name: str) -> None:
    longest = {"token": "x" * TOKEN_MAX_LENGTH}
    validator(name).validate(longest)
    parse(name, longest)
    too_long = {"token": "x" * (TOKEN_MAX_LENGTH + 1)}
    assert not validator(name).is_valid(too_long)
    with pytest.raises(InvalidMessage):
        parse(name, too_long)


def test_huge_job_id_is_refused() -> None:
    payload = {"job_id": "x" * 10_000}
    assert not validator("join_job").is_valid(payload)
    with pytest.raises(InvalidMessage, match=r"^join_job: "):
        parse_request("join_job", payload, JoinJob)


@pytest.mark.parametrize("name", MESSAGES)
def test_document_has_a_section_for_every_message(name: str) -> None:
    assert f"### `{name.removesuffix('.ack')}`" in WORDS


@pytest.mark.parametrize("name", STRUCTS)
def test_document_names_every_field(name: str) -> None:
    for field in msgspec.structs.fields(STRUCTS[name]):
        assert f"`{field.encode_name}`" in WORDS or f"{field.encode_name}:" in WORDS


@pytest.mark.parametrize("code", DEFINITIONS["code"]["examples"])
def test_document_names_every_code(code: str) -> None:
    assert f"| `{code}` |" in WORDS


@pytest.mark.parametrize("value", [*get_args(State), *get_args(Reason), *get_args(Level)])
def test_document_names_every_state_reason_and_level(value: str) -> None:
    assert f"`{value}`" in WORDS


def test_document_states_the_version() -> None:
    assert f"# jobcast protocol, version {PROTOCOL_VERSION}\n" in WORDS
