"""The documentation, the settings and the metrics name the same things."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge

from jobcast.realtime import metrics
from jobcast.settings import FILE_SUFFIX, PREFIX, Settings, names
from tests.support import ROOT

TEXTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "protocol").glob("*.md"),
        *(ROOT / "client").glob("*.md"),
        *(ROOT / "src" / "jobcast" / "_project").rglob("*.md"),
    ]
)
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text()

# Of the command line and of Compose; no Settings has them.
OTHERS = {"JOBCAST_TOKEN", "JOBCAST_DEMO", "JOBCAST_PORTS"}
# `JOBCAST_X` stands for any setting.
PLACEHOLDERS = {"JOBCAST_X", "JOBCAST_JWT"}
VARIABLES = {name.upper() for name in names()}


def rows(text: str) -> dict[str, str]:
    """Each variable of the table of settings, with its default as the table has it."""
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
def test_the_documented_default_is_that_of_the_code(variable: str) -> None:
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
def test_a_text_names_only_settings_that_exist(path: Path) -> None:
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
        r"^\| `(jobcast_[a-z_]+?)(?:_total)?(?:\{\w+\})?` \|", DEPLOYMENT, re.MULTILINE
    )
    assert sorted(documented) == sorted(exposed)
