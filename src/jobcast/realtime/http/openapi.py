"""The OpenAPI description of the HTTP interface."""

from __future__ import annotations

from typing import Any, Final

from jobcast.events import (
    CANCEL_MESSAGE_MAX_LENGTH,
    JOB_ID_MAX_LENGTH,
    LEVELS,
    MAX_TAGS,
    PROTOCOL_VERSION,
    REASONS,
    STATES,
    TITLE_MAX_LENGTH,
)
from jobcast.feeds import DEFAULT_FEED_LIMIT, MAX_FEED_LIMIT, MAX_HTTP_PAGE
from jobcast.realtime.http.request import MAX_LINES, MAX_WAIT, STREAM_JOBS
from jobcast.settings import Settings

Schema = dict[str, Any]

_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_TEXT: Final[Schema] = {"type": "string"}

_DESCRIPTION: Final[Schema] = {
    "task": {"type": "string", "description": "the Celery task's name"},
    "title": {"type": "string", "minLength": 1, "maxLength": TITLE_MAX_LENGTH},
    "tags": {"type": "array", "maxItems": MAX_TAGS, "items": _TEXT},
    "queue": _TEXT,
    "worker": {"type": "string", "description": "the worker that runs the job"},
    "parent": {"type": "string", "description": "the job that sent this one"},
    "owner": {"type": "string", "description": "the subject that owns the job"},
    "created_at": {**_TIME, "description": "when the job was sent"},
    "cancellable": {"type": "boolean", "description": "false if the job cannot be cancelled"},
    "terminates": {
        "type": "boolean",
        "description": "true if the worker terminates a cancelled run that does not end",
    },
}

_SCHEMAS: Final[Schema] = {
    "Progress": {
        "type": "object",
        "required": ["percentage"],
        "properties": {
            "percentage": {"type": ["number", "null"], "minimum": 0, "maximum": 100},
            "message": _TEXT,
            "current": {"type": "number"},
            "total": {"type": "number"},
            "stage": _TEXT,
            "rate": {"type": "number"},
            "eta": {"type": "number", "description": "remaining seconds"},
        },
    },
    "Error": {
        "type": "object",
        "required": ["error", "message", "reason"],
        "properties": {
            "error": {"type": "string", "description": "the exception's class"},
            "message": _TEXT,
            "reason": {"type": "string", "examples": list(REASONS)},
            "by": {"type": "string", "description": "the subject who cancelled the job"},
        },
    },
    "Cancel": {
        "type": "object",
        "properties": {
            "message": {"type": "string", "maxLength": CANCEL_MESSAGE_MAX_LENGTH, "default": ""}
        },
    },
    "Cancelled": {
        "type": "object",
        "required": ["ok", "job_id", "outcome"],
        "properties": {
            "ok": {"const": True},
            "job_id": _TEXT,
            "outcome": {
                "type": "string",
                "examples": ["cancelled", "requested", "already_ended"],
            },
            "terminates": {
                "type": "boolean",
                "description": "with requested: whether the worker terminates the run",
            },
        },
    },
    "Cancellation": {
        "type": "object",
        "required": ["requested_at"],
        "properties": {
            "by": {"type": "string", "description": "the subject who cancelled the job"},
            "message": _TEXT,
            "requested_at": _TIME,
        },
    },
    "Retry": {
        "type": "object",
        "properties": {"retry_at": _TIME, "error": _TEXT, "message": _TEXT},
    },
    "LogLine": {
        "type": "object",
        "required": ["level", "message", "seq", "timestamp"],
        "properties": {
            "level": {"type": "string", "examples": list(LEVELS)},
            "message": _TEXT,
            "attempt": {"type": "integer", "minimum": 1},
            "seq": {"type": "integer", "minimum": 0},
            "timestamp": _TIME,
        },
    },
    "State": {
        "type": "object",
        "required": ["job_id", "status", "log_lines"],
        "properties": {
            "job_id": _TEXT,
            "status": {
                "type": "string",
                "examples": list(STATES),
            },
            **_DESCRIPTION,
            "attempt": {"type": "integer", "minimum": 1},
            "run": {"type": "integer", "minimum": 1},
            "progress": {"$ref": "#/components/schemas/Progress"},
            "retry": {"$ref": "#/components/schemas/Retry"},
            "cancellation": {"$ref": "#/components/schemas/Cancellation"},
            "result": {"description": "the result of a job that is complete"},
            "error": {"$ref": "#/components/schemas/Error"},
            "queued_at": _TIME,
            "started_at": _TIME,
            "updated_at": _TIME,
            "ended_at": _TIME,
            "cursor": {
                "type": "string",
                "description": "the position of this state, for ?after= of an event stream",
            },
            "log_lines": {"type": "integer", "description": "the number of retained log lines"},
            "logs": {"type": "array", "items": {"$ref": "#/components/schemas/LogLine"}},
        },
    },
    "Summary": {
        "type": "object",
        "required": ["job_id", "epoch", "seq", "status", "created_at"],
        "properties": {
            "job_id": _TEXT,
            "epoch": {"type": "string", "description": "the record of the job"},
            "seq": {"type": "integer", "description": "the position in the record", "minimum": 0},
            "status": _TEXT,
            **_DESCRIPTION,
            "started_at": _TIME,
            "ended_at": _TIME,
            "attempt": {"type": "integer", "minimum": 1},
            "percentage": {"type": ["number", "null"], "minimum": 0, "maximum": 100},
            "message": {
                "type": "string",
                "description": "of the latest progress, cancellation or failure",
            },
            "reason": {"type": "string", "examples": list(REASONS)},
        },
    },
    "Page": {
        "type": "object",
        "required": ["feed", "jobs", "total"],
        "properties": {
            "feed": _TEXT,
            "jobs": {"type": "array", "items": {"$ref": "#/components/schemas/Summary"}},
            "total": {"type": "integer", "description": "the number of jobs that match"},
            "cursor": {"type": "string", "description": "for the next page, if there is one"},
        },
    },
    "Problem": {
        "type": "object",
        "description": "RFC 9457",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": {
            "type": _TEXT,
            "title": _TEXT,
            "status": {"type": "integer"},
            "code": {"type": "string", "description": "a code of the protocol"},
            "detail": _TEXT,
        },
    },
}

_PROBLEMS: Final[Schema] = {
    status: {"$ref": "#/components/responses/Problem"}
    for status in ("400", "401", "403", "404", "414", "429", "500", "503")
}
_STREAM: Final[Schema] = {
    "200": {
        "description": (
            "the events of the protocol; the stream ends after the terminal events of all jobs"
        ),
        "content": {"text/event-stream": {"schema": _TEXT}},
    },
    "204": {"description": "the client has every event of jobs that have ended"},
    **_PROBLEMS,
}


def description(settings: Settings) -> Schema:
    """Return the OpenAPI 3.1 description of the interface."""
    security: list[Schema] = [{"bearer": []}]
    schemes: Schema = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    if settings.token_in_query:
        schemes["query"] = {"type": "apiKey", "in": "query", "name": "token"}
        security.append({"query": []})
    if settings.authenticate is not None:
        security.append({})  # the application decides, by a cookie for example
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "jobcast",
            "version": str(PROTOCOL_VERSION),
            "description": "The state and the events of jobs.",
        },
        "servers": [{"url": settings.path_prefix or "/"}],
        "security": security,
        "paths": {
            "/jobs/{job_id}": {"get": _state_operation()},
            "/jobs/{job_id}/events": {"get": _job_events_operation()},
            "/events": {"get": _events_operation()},
            "/jobs/{job_id}/cancel": {"post": _cancel_operation()},
            "/jobs": {"get": _page_operation()},
            "/feeds/{feed}/events": {"get": _feed_operation()},
        },
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": schemes,
            "responses": {
                "Problem": {
                    "description": "the request is refused",
                    "content": {
                        "application/problem+json": {
                            "schema": {"$ref": "#/components/schemas/Problem"}
                        }
                    },
                }
            },
        },
    }


def _state_operation() -> Schema:
    return {
        "operationId": "getJob",
        "summary": "Return the state of a job",
        "parameters": [
            _job_id(),
            _number("wait", "seconds to wait for the end of the job", MAX_WAIT),
            _number("logs", "the number of latest log lines to include", MAX_LINES),
            _header("If-None-Match", "an ETag: answer 304 if the state is unchanged"),
        ],
        "responses": {
            "200": {
                "description": "the state",
                "headers": {"ETag": {"schema": _TEXT}},
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/State"}}},
            },
            "304": {"description": "the state is unchanged"},
            **_PROBLEMS,
        },
    }


def _job_events_operation() -> Schema:
    return {
        "operationId": "followJob",
        "summary": "Stream the events of a job",
        "parameters": [_job_id(), _after(), _last_event_id()],
        "responses": _STREAM,
    }


def _cancel_operation() -> Schema:
    return {
        "operationId": "cancelJob",
        "summary": "Cancel a job, or ask its running worker to stop",
        "parameters": [_job_id()],
        "requestBody": {
            "required": False,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Cancel"}}},
        },
        "responses": {
            "200": {
                "description": "the outcome",
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/Cancelled"}}
                },
            },
            **{
                status: {"$ref": "#/components/responses/Problem"}
                for status in ("408", "409", "413")
            },
            **_PROBLEMS,
        },
    }


def _events_operation() -> Schema:
    job = {
        "name": "job",
        "in": "query",
        "required": True,
        "description": f"a job to follow; may be repeated for up to {STREAM_JOBS} jobs",
        "schema": {"type": "array", "minItems": 1, "maxItems": STREAM_JOBS, "items": _TEXT},
        "style": "form",
        "explode": True,
    }
    return {
        "operationId": "followJobs",
        "summary": "Stream the events of several jobs",
        "parameters": [job, _after(), _last_event_id()],
        "responses": _STREAM,
    }


def _page_operation() -> Schema:
    feed = _query("feed", "mine, owner:SUBJECT, tag:TAG or all; mine if missing", _TEXT)
    return {
        "operationId": "listJobs",
        "summary": "Return a page of a list of jobs, the newest first",
        "parameters": [
            feed,
            *_filter(MAX_HTTP_PAGE),
            _query("cursor", "the cursor of the previous page", _TEXT),
        ],
        "responses": {
            "200": {
                "description": "the page",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Page"}}},
            },
            **_PROBLEMS,
        },
    }


def _feed_operation() -> Schema:
    feed = {"name": "feed", "in": "path", "required": True, "schema": _TEXT}
    return {
        "operationId": "followFeed",
        "summary": "Stream the changes of a list of jobs",
        "parameters": [feed, *_filter(MAX_FEED_LIMIT)],
        "responses": {
            "200": {
                "description": "feed_snapshot, feed_job and feed_gone events of the protocol",
                "content": {"text/event-stream": {"schema": _TEXT}},
            },
            **_PROBLEMS,
        },
    }


def _filter(max_limit: int) -> list[Schema]:
    limit = {"type": "integer", "minimum": 1, "maximum": max_limit, "default": DEFAULT_FEED_LIMIT}
    return [
        _query("status", "states, separated by commas; also running and failed", _TEXT),
        _query("tag", "jobs with this tag", _TEXT),
        _query("task", "jobs of this task", _TEXT),
        _query("owner", "jobs of this owner", _TEXT),
        _query("since", "jobs that were created then or later", _TIME),
        _query("limit", "the number of jobs", limit),
    ]


def _query(name: str, text: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "description": text, "schema": schema}


def _job_id() -> Schema:
    return {
        "name": "job_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": JOB_ID_MAX_LENGTH},
    }


def _after() -> Schema:
    return {
        "name": "after",
        "in": "query",
        "description": "the position to resume after: the last event's id or a state's cursor",
        "schema": _TEXT,
    }


def _last_event_id() -> Schema:
    return _header("Last-Event-ID", "as ?after=, and with precedence over it")


def _header(name: str, text: str) -> Schema:
    return {"name": name, "in": "header", "description": text, "schema": _TEXT}


def _number(name: str, text: str, high: float) -> Schema:
    return {
        "name": name,
        "in": "query",
        "description": f"{text}; at most {high:g}",
        "schema": {"type": "number", "minimum": 0},
    }
