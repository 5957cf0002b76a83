"""The source of a job's settings, with none, one and two Celery applications."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery

from jobcast import ProgressTask, open_job
from jobcast.celery.apps import configured_apps
from jobcast.errors import SettingsError
from jobcast.publishing import runtime
from jobcast.transports.memory import MemoryBroker
from tests.support import new_id

Make = Callable[..., Celery]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Return a function that creates an application with a URL in its settings."""
    monkeypatch.delenv("JOBCAST_URL", raising=False)
    monkeypatch.setattr("jobcast.celery.apps.active_apps", lambda: tuple(apps))
    apps: list[Celery] = []
    runtime.close()

    def make(url: str | None = None, **conf: Any) -> Celery:
        app = Celery("a", broker="memory://", set_as_current=False)
        if url is not None:
            app.conf.update(jobcast_url=url, **conf)
        apps.append(app)
        return app

    yield make
    runtime.close()


def states(*urls: str, job_id: str) -> list[str]:
    return [MemoryBroker.at(url).snapshot(job_id, None).state for url in urls]


def test_open_job_uses_the_settings_of_the_application(make: Make) -> None:
    url = f"memory://{new_id()}"
    make(url)
    with open_job(job_id := new_id()):
        pass
    assert states(url, job_id=job_id) == ["complete"]


def test_settings_with_a_namespace_prefix_are_found(make: Make) -> None:
    url = f"memory://{new_id()}"
    app = make()
    app.config_from_object({"CELERY_JOBCAST_URL": url}, namespace="CELERY", force=True)
    with open_job(job_id := new_id()):
        pass
    assert states(url, job_id=job_id) == ["complete"]


def test_each_application_publishes_to_its_own_transport(make: Make) -> None:
    urls = [f"memory://{new_id()}" for _ in range(2)]
    for url in urls:
        app = make(url)

        @app.task(base=ProgressTask, bind=True, shared=False)
        def opens_another(self: ProgressTask, other: str) -> None:
            with open_job(other):
                pass

        result = opens_another.apply((other := new_id(),))
        for job_id in (result.id, other):
            expected = ["complete" if one == url else "pending" for one in urls]
            assert states(*urls, job_id=job_id) == expected


def test_open_job_requires_app_if_settings_differ(make: Make) -> None:
    urls = [f"memory://{new_id()}" for _ in range(2)]
    first, second = map(make, urls)
    with pytest.raises(SettingsError, match="differ between the Celery applications"):
        open_job("a")
    with open_job(job_id := new_id(), app=second):
        pass
    assert states(*urls, job_id=job_id) == ["pending", "complete"]
    assert configured_apps() == [first, second]


def test_applications_with_the_same_settings_share_a_publisher(make: Make) -> None:
    url = f"memory://{new_id()}"
    first, second = make(url), make(url)
    here = runtime.get_runtime(first.conf)
    assert here is not None
    assert runtime.get_runtime(second.conf) is here
    with open_job(job_id := new_id()):
        pass
    assert states(url, job_id=job_id) == ["complete"]


def test_environment_overrides_every_application(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        make(f"memory://{new_id()}")
    monkeypatch.setenv("JOBCAST_URL", url := f"memory://{new_id()}")
    with open_job(job_id := new_id()):
        pass
    assert states(url, job_id=job_id) == ["complete"]


def test_application_with_broken_configuration_is_ignored(make: Make) -> None:
    url = f"memory://{new_id()}"
    make(url)
    make().config_from_object("there.is.no.such.module")
    with open_job(job_id := new_id()):
        pass
    assert states(url, job_id=job_id) == ["complete"]
