"""A Griffe extension: docstrings keep their few reStructuredText forms and render as Markdown."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:class|meth|func|attr|mod|data|exc):`~?([^`<]+?)(?: <[^`>]+>)?`")
DOCTEST = re.compile(r"^(?:(?:>>>|\.\.\.).*(?:\n|\Z))+(?:(?!\s*$|>>>).+(?:\n|\Z))*", re.MULTILINE)


def as_markdown(docstring: str) -> str:
    """Turn roles into code and doctests into fenced blocks.

    >>> as_markdown("see :meth:`Job.log`")
    'see `Job.log`'
    """
    text = ROLE.sub(r"`\1`", docstring)
    return DOCTEST.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", text)


class ReStructuredText(Extension):
    """Rewrite each docstring before it is parsed."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
