"""The rule of the guide for Django, in a server of several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.conftest import Valkey
from tests.e2e.documented import Page
from tests.support import ROOT, Process, answers, following, free_port, new_id, running

GUIDE = Page("docs/how-to/authorization.md")
MANAGE = [sys.executable, "-m", "django"]

SEND = """
import json
import django
from jobcast import issue_token
from tests.support.django_site.app import greet

django.setup()

from django.contrib.auth.models import Group, User

project = Group.objects.create(name="project:7")
users = {name: User.objects.create_user(name, is_staff=name == "staff") for name in NAMES}
for name in ("member", "former"):
    users[name].groups.add(project)
User.objects.filter(username="former").update(is_active=False)
job = greet.as_job(owner=users["owner"].pk, tags=["project:7"]).delay(1)
untagged = greet.as_job(owner=users["owner"].pk, title="project:7").delay(1)
tokens = {name: issue_token(user.pk) for name, user in users.items()}
print(json.dumps({"tokens": tokens, "job": job.id, "untagged": untagged.id}))
"""
NAMES = ("owner", "member", "former", "staff", "other")


class Site(NamedTuple):
    url: str
    tokens: dict[str, str]
    job: str  # has the tag of the project
    untagged: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "access.py").write_text(GUIDE.modules["access.py"])
    port = free_port()
    env = {
        "DJANGO_SETTINGS_MODULE": "tests.support.django_site.settings",
        "JOBCAST_AUTHORIZE": "access:allow",
        "JOBCAST_WORKERS": "2",
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "TEST_DATABASE": str(folder / "site.sqlite3"),
        "TEST_REDIS": valkey.url,
        "TEST_QUEUE": new_id("queue"),
        "TEST_PORT": str(port),
    }
    run(env, *MANAGE, "migrate", "--verbosity=0")
    sent: dict[str, Any] = json.loads(
        run(env, sys.executable, "-c", SEND.replace("NAMES", str(NAMES)))
    )
    with running(Process([*MANAGE, "jobcast", "serve"], folder / "serve.log", env)) as server:
        url = f"http://127.0.0.1:{port}"
        server.expect(lambda: answers(f"{url}/readyz"), "ready server")
        yield Site(url=url, **sent)


def run(env: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, text=True, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("user", "job", "untagged"),
    [
        ("owner", True, True),
        ("member", True, False),
        ("staff", True, True),
        ("former", False, False),
        ("other", False, False),
    ],
)
async def test_staff_follows_everything_and_members_the_jobs_of_their_project(
    site: Site, user: str, job: bool, untagged: bool
) -> None:
    async with following(site.url, site.tokens[user]) as follower:
        for job_id, allowed in ((site.job, job), (site.untagged, untagged)):
            answer = await follower.join(job_id)
            assert answer.get("code") == (None if allowed else "job_not_found"), answer
