"""Release and workflow conventions: one version, one repository, minimal permissions."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGE = json.loads((ROOT / "client" / "package.json").read_text())
WORKFLOWS: dict[str, dict[str, Any]] = {
    path.name: yaml.safe_load(path.read_text())
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
}
JOBS = [
    pytest.param(job, id=f"{workflow}:{name}")
    for workflow, content in WORKFLOWS.items()
    for name, job in content["jobs"].items()
]


def test_both_packages_have_one_version() -> None:
    assert PACKAGE["version"] == PROJECT["version"]


def test_both_packages_name_one_repository() -> None:
    """npm publishes only from the repository that package.json names."""
    source = PROJECT["urls"]["Source"]
    assert PACKAGE["repository"]["url"] == f"git+{source}.git"
    assert (ROOT / PACKAGE["repository"]["directory"] / "package.json").is_file()
    assert all(url.startswith(source) for url in PROJECT["urls"].values())


def test_the_matrix_has_every_supported_python() -> None:
    (matrix,) = (
        job["strategy"]["matrix"]["python"] for job in WORKFLOWS["tests.yml"]["jobs"].values()
        if "strategy" in job
    )  # fmt: skip
    supported = [
        classifier.rpartition(" ")[2] for classifier in PROJECT["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", classifier)
    ]  # fmt: skip
    assert matrix == supported


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_grant_no_permission_by_default(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {}
    assert "secrets." not in (ROOT / ".github" / "workflows" / name).read_text()


@pytest.mark.parametrize("job", JOBS)
def test_workflow_jobs_have_minimal_permissions_and_a_timeout(job: dict[str, Any]) -> None:
    assert job["permissions"] in ({"contents": "read"}, {"id-token": "write"})
    assert "uses" in job or job["timeout-minutes"] <= 60


@pytest.mark.parametrize("job", JOBS)
def test_publishing_jobs_run_no_code_of_the_checkout(job: dict[str, Any]) -> None:
    if "id-token" not in job["permissions"]:
        return
    assert job["environment"]
    for step in job["steps"]:
        assert not step.get("uses", "").startswith("actions/checkout")
        assert "make" not in step.get("run", "")


@pytest.mark.parametrize("job", JOBS)
def test_actions_have_exact_versions(job: dict[str, Any]) -> None:
    for step in job.get("steps", []):
        if action := step.get("uses"):
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", action)


def test_dependabot_watches_every_lock_file() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    watched = {
        (update["package-ecosystem"], directory)
        for update in updates
        for directory in update.get("directories", [update.get("directory")])
    }
    npm = {
        f"/{path.parent.relative_to(ROOT).as_posix()}"
        for path in ROOT.glob("*/**/package-lock.json")
        if not {"node_modules", ".venv"} & set(path.parts)
    }
    assert watched == {("uv", "/"), ("github-actions", "/"), *(("npm", path) for path in npm)}


def test_every_test_tier_is_configured() -> None:
    """Only `make containers` runs the tests that need a container engine."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    tiers = {Path(path) for path in options["testpaths"]}
    packages = {
        path.parent.relative_to(ROOT)
        for pattern in ("tests/*/__init__.py", "bench/tests/*/__init__.py")
        for path in ROOT.glob(pattern)
    }
    assert packages == tiers | {Path("tests", "containers"), Path("tests", "support")}
