"""Check the titles and tags that describe jobs to people."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from jobcast.events import MAX_TAGS, TAG_MAX_LENGTH, TAG_PATTERN, TITLE_MAX_LENGTH
from jobcast.publishing.texts import safe_text

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TAG: Final = re.compile(TAG_PATTERN)


def title_of(title: object) -> str | None:
    """Return a title as one line that can be published; None if it is blank.

    A title of more than 256 characters is truncated.
    """
    if title is None:
        return None
    text = " ".join(_CONTROL.sub(" ", safe_text(title)).split())
    if len(text) > TITLE_MAX_LENGTH:
        text = text[: TITLE_MAX_LENGTH - 1] + "…"
    return text or None


def tags_of(tags: Iterable[str]) -> tuple[str, ...]:
    """Return distinct tags in their order.

    Raises:
        TypeError: ``tags`` is a single text, or one of them is no text.
        ValueError: there are more than 10 tags, or one of them is empty, longer than 128
            characters, or contains control characters or lone surrogates.
    """
    if isinstance(tags, str):
        raise TypeError(
            f"a job's tags are a sequence of texts: pass [{tags!r}] instead of {tags!r}"
        )
    distinct = tuple(dict.fromkeys(map(_tag, tags)))
    if len(distinct) > MAX_TAGS:
        raise ValueError(f"a job has at most {MAX_TAGS} tags, not {len(distinct)}")
    return distinct


def _tag(tag: object) -> str:
    if not isinstance(tag, str):
        raise TypeError(f"a tag of a job is a text, not a value of type {type(tag).__name__}")
    text = str.__str__(tag)
    if not _TAG.match(text):
        raise ValueError(
            f"a tag of a job has 1 to {TAG_MAX_LENGTH} characters, none of them a control"
            f" character; not {text[: 2 * TAG_MAX_LENGTH]!r}"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"a tag of a job is valid Unicode, but {text!r} has lone surrogates"
        ) from None
    return text
