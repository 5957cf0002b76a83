"""MkDocs hooks: check the declared Python API and the pages, and publish the JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = "events.schema.json"
#: The page that declares the public API: one ``:::`` line for each name.
API_PAGE = ROOT / "docs" / "reference" / "python.md"

ASSET = re.compile(
    r"<(?:script|img|iframe)[^>]*\ssrc=\"https?://[^>]*>|<link[^>]*\shref=\"https?://[^>]*>"
)
DECLARATION = re.compile(r"^::: (\S+)\n((?:    .*\n)*)", re.MULTILINE)


def declared(page: str) -> dict[str, list[str] | None]:
    """Return each public name, with the members that the page lists (None: all public ones)."""
    found: dict[str, list[str] | None] = {}
    for name, block in DECLARATION.findall(page):
        options: dict[str, Any] = (yaml.safe_load(block) or {}).get("options", {})
        members = options.get("members")
        found[name] = [] if members is False else members
    return found


def undocumented(page: str) -> list[str]:
    """Return the declared names, and their public methods and properties, without a docstring.

    Raises:
        KeyError: the page declares a name that does not exist.
    """
    loader = griffe.GriffeLoader(search_paths=[ROOT / "src"])
    package = loader.load("jobcast")
    loader.resolve_aliases(implicit=True)
    return [
        obj.path
        for name, members in declared(page).items()
        for obj in _with_members(package[name.removeprefix("jobcast.")], members)
        if not obj.has_docstring
    ]


def _with_members(obj: Any, members: list[str] | None) -> Iterator[Any]:
    yield obj
    if obj.is_class:
        names = [name for name in obj.members if not name.startswith("_")]
        for name in names if members is None else members:
            member = obj[name]
            if member.is_function or "property" in member.labels:
                yield member


def on_pre_build(config: MkDocsConfig) -> None:  # noqa: ARG001
    """Fail the build if a declared name has no docstring."""
    if missing := undocumented(API_PAGE.read_text("utf-8")):
        raise PluginError(f"no docstring: {', '.join(missing)} (declared in {API_PAGE.name})")


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:  # noqa: ARG001
    """Fail the build if a page loads anything from another server."""
    if found := ASSET.search(output):
        raise PluginError(f"{page.file.src_uri} loads {found[0]}")
    return output


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Serve the schema beside the page of the protocol, which links to it."""
    files.append(
        File.generated(config, f"reference/{SCHEMA}", abs_src_path=str(ROOT / "protocol" / SCHEMA))
    )
    return files
