"""The documentation matches the settings, the metrics, the commands and the Python API."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import click
import pytest
from prometheus_client import Counter, Gauge

from docs.assets.griffe_rst import as_markdown
from docs.assets.hooks import API_PAGE, SCHEMA, declared, undocumented
from jobcast.cli.main import main
from jobcast.realtime import metrics
from jobcast.settings import FILE_SUFFIX, PREFIX, Settings, names
from tests.support import ROOT

DOCS = ROOT / "docs"
TEXTS = sorted(
    [
        *ROOT.glob("*.md"),
        *DOCS.rglob("*.md"),
        *(ROOT / "protocol").glob("*.md"),
        *(ROOT / "client").glob("*.md"),
        *(ROOT / "src" / "jobcast" / "_project").rglob("*.md"),
    ]
)
REFERENCE = DOCS / "reference"
SETTINGS = (REFERENCE / "settings.md").read_text()
METRICS = (REFERENCE / "metrics.md").read_text()
COMMANDS = (REFERENCE / "cli.md").read_text()
TYPESCRIPT = (REFERENCE / "typescript.md").read_text()
CLIENT = ROOT / "client" / "src"

# Variables of the command line and of Compose, which are not settings.
OTHERS = {"JOBCAST_TOKEN", "JOBCAST_DEMO", "JOBCAST_PORTS"}
# `JOBCAST_X` stands for any setting.
PLACEHOLDERS = {"JOBCAST_X", "JOBCAST_JWT"}
VARIABLES = {name.upper() for name in names()}


def rows(text: str) -> dict[str, str]:
    """Return the variables in the table of settings, each with its documented default."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("| `JOBCAST_"):
            _, variables, default, *_ = (cell.strip() for cell in line.split("|"))
            given = re.findall(PREFIX + r"[A-Z_]+", variables)
            defaults = [default] if len(given) == 1 else default.split(", ")
            assert not found.keys() & set(given)
            found |= dict(zip(given, defaults, strict=True))
    return found


def test_every_setting_has_a_parser_and_a_row() -> None:
    fields = {PREFIX + field.upper() for field in Settings.__struct_fields__}
    assert fields == VARIABLES == rows(SETTINGS).keys()


@pytest.mark.parametrize("variable", sorted(VARIABLES))
def test_documented_default_matches_the_code(variable: str) -> None:
    documented = rows(SETTINGS)[variable]
    default = getattr(Settings(), variable.removeprefix(PREFIX).lower())
    if default in (None, (), ""):
        assert not re.fullmatch("`.*`", documented)
    elif documented.startswith("`"):
        shown = (
            str(default).lower()
            if isinstance(default, bool)
            else f"{default:g}"
            if isinstance(default, float)
            else str(default)
        )
        assert documented.split("`")[1] == shown
    else:
        assert (variable, default) == ("JOBCAST_MAX_CONNECTIONS", 0)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_only_existing_settings(path: Path) -> None:
    named = {name.rstrip("_") for name in re.findall(PREFIX + r"[A-Z_]+", path.read_text())}
    without_suffix = {name.removesuffix(FILE_SUFFIX) for name in named}
    assert without_suffix - PLACEHOLDERS - OTHERS <= VARIABLES


def test_every_metric_has_a_row() -> None:
    exposed = [
        family.name
        for metric in vars(metrics).values()
        if isinstance(metric, Counter | Gauge)
        for family in metric.describe()
    ]
    documented = re.findall(
        r"^\| `(jobcast_[a-z_]+?)(?:_total)?(?:\{\w+\})?` \|", METRICS, re.MULTILINE
    )
    assert sorted(documented) == sorted(exposed)


LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)#\s]+)(?:#[^)]*)?\)|!\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_point_to_files(path: Path) -> None:
    """`make docs` checks the pages of the site; this test covers the other documents too."""
    for groups in LINK.findall(path.read_text()):
        target = next(filter(None, groups))
        if "://" not in target and (path.parent, target) != (REFERENCE, SCHEMA):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_of_texts_are_wrapped(path: Path) -> None:
    """Tables and code are as wide as they have to be, and so are lines with a URL."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = [line for line in text.splitlines() if not line.startswith("|") and "://" not in line]
    assert [line for line in lines if len(line) > 128] == []


def sections_of_commands() -> dict[str, str]:
    _, *parts = re.split(r"^## jobcast (\w+)$", COMMANDS, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_command_has_a_section() -> None:
    assert sections_of_commands().keys() == main.commands.keys()


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_option_of_a_command_has_a_row(name: str) -> None:
    options = {
        option
        for parameter in main.commands[name].params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
    rows = re.findall(r"^\| `(--[\w-]+)` \|", sections_of_commands()[name], re.MULTILINE)
    assert set(rows) == options


def test_every_declared_name_has_a_docstring() -> None:
    assert undocumented(API_PAGE.read_text("utf-8")) == []


def test_undocumented_reports_a_name_without_docstring() -> None:
    """`Transport` has fields only, `Job.log` has a docstring, and `Job.__enter__` has none."""
    page = (
        "::: jobcast.transports.Transport\n\n"
        "::: jobcast.Job\n    options:\n      members:\n        - log\n        - __enter__\n"
    )
    assert undocumented(page) == ["jobcast.Job.__enter__"]


def test_undocumented_raises_for_a_missing_name() -> None:
    with pytest.raises(KeyError):
        undocumented("::: jobcast.missing\n")


@pytest.mark.parametrize("module", ["jobcast", "jobcast.realtime"])
def test_every_exported_name_is_declared(module: str) -> None:
    exported = {f"{module}.{name}" for name in import_module(module).__all__}
    assert exported <= declared(API_PAGE.read_text("utf-8")).keys()


def exports_of(module: str) -> set[str]:
    """Return the names that a TypeScript module exports, in lists or at their definitions."""
    source = (CLIENT / module).read_text()
    lists = re.findall(r"^export (?:type )?\{([^}]*)\}", source, re.MULTILINE)
    listed = {item.split()[-1] for names in lists for item in names.split(",") if item.strip()}
    defined = re.findall(
        r"^export (?:declare )?(?:function|const|type|interface|class) (\w+)", source, re.MULTILINE
    )
    return listed | set(defined)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("index.ts", "createJobClient"),
        ("react.ts", "useJobSocket"),
        ("vue.ts", "useJob"),
        ("svelte.ts", "jobStore"),
        ("element.ts", "JobElement"),
        ("testing.ts", "createFakeJobClient"),
    ],
)
def test_every_exported_typescript_name_has_a_row(module: str, name: str) -> None:
    exported = exports_of(module)
    assert name in exported
    cells = " ".join(re.findall(r"^\| (`.*?) \|", TYPESCRIPT, re.MULTILINE))
    assert exported <= set(re.findall(r"`(\w+)", cells))


@pytest.mark.parametrize(
    ("docstring", "markdown"),
    [
        ("See :meth:`Job.log`.", "See `Job.log`."),
        ("See :class:`~jobcast.Job`.", "See `jobcast.Job`."),
        ("Text.\n\n>>> f(1)\n2\n\nMore.", "Text.\n\n```pycon\n>>> f(1)\n2\n```\n\nMore."),
    ],
)
def test_docstrings_become_markdown(docstring: str, markdown: str) -> None:
    assert as_markdown(docstring) == markdown
