"""The custom element ``<jobcast-job>``, as one file for web pages."""

from __future__ import annotations

from pathlib import Path
from typing import Final

NAME: Final = "jobcast.js"
# `make element` builds the file. A wheel contains it.
PATH: Final = Path(__file__).resolve().parent / "_element" / NAME
NOT_BUILT: Final = "The element is not built. In a checkout of jobcast: make element\n"
