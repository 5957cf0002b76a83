"""The Lua scripts of this package."""

from __future__ import annotations

from importlib.resources import files


def script(name: str) -> str:
    """Return the text of ``scripts/NAME.lua``."""
    return files("jobcast.transports.redis").joinpath("scripts", f"{name}.lua").read_text("utf-8")
