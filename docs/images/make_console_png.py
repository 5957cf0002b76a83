"""Make console-*.png from a real run: Valkey, workers, a server, 1,000 jobs and Chromium.

python -m docs.images.make_console_png
"""

from __future__ import annotations

import io
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from jobcast.tokens import mint
from tests.support import SECRET, TIMEOUT, Server, Worker, running, wait_for
from tests.support.redis_family import RedisProcess

FOLDER = Path(os.environ.get("CONSOLE_PICTURES", Path(__file__).parent))
APP = "docs.images.console_jobs"
JOBS = 1000
RUNNING = 14  # jobs that run in the pictures, besides those of the closing
QUEUED = 4  # young jobs in a queue without a worker
STATEMENTS = 18  # of the closing of a month: 3 for each branch
CLOSING = 25  # jobs of the closing: of the month, of 6 branches, and of the statements
HELD = 19  # of them, that run in the pictures
STUCK = 5  # a stalled job, two that retry, and two in a queue without a worker for long
THREADS = 40  # of the worker: more than jobs that run in the pictures
SCALE = 1.25  # device pixels to one of the page
COLOURS = 20  # of the surfaces, and as many others
MAX_SIZE = 100_000  # bytes of a picture
OPERATOR = "olga"
TOKEN = mint(SECRET, OPERATOR, feeds=["*"], jobs=["*"])
OWNERS = (
    "ada", "bob", "carol", "dmitri", "emma", "farid", "grace", "hugo", "ines", "jonas",
    "kofi", "lena", "mateo", "nadia", "oskar", "paula", "quentin", "rosa", "sven", "tara",
)  # fmt: skip
CUSTOMERS = ("Almond & Sons", "Brightwater", "Cobalt Works", "Dune Travel", "Elm Street Books")
FILES = ("prices.csv", "spring.csv", "supplier.csv", "wholesale.csv")
ALBUMS = ("shoes", "summer hats", "garden tools", "lamps")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip


class Shop:
    """Sends the jobs of the pictures, the same ones in each run."""

    def __init__(self) -> None:
        self._random = random.Random(19)

    def send(
        self, name: str, *arguments: Any, owner: str | None = None, queue: str | None = None
    ) -> str:
        """Send a job and return its id."""
        tags = [f"project:{self._random.randrange(1, 9)}", *self._random.choice(((), ("spring",)))]
        # The module reads the address of the broker when it is imported.
        job = getattr(import_module(APP), name).as_job(
            owner=owner or self._random.choice(OWNERS), tags=tags
        )
        return str(job.apply_async(arguments, queue=queue).id)

    def send_any(self, stop_at: int = 100, queue: str | None = None) -> None:
        """Send a job that stops at a percentage, or ends: sometimes with an error."""
        name, values = self._random.choice(
            (("report", CUSTOMERS), ("import_prices", FILES), ("thumbnails", ALBUMS))
        )
        wrong = name != "report" and self._random.random() < 0.1
        arguments = (self._random.choice(values), stop_at, *((True,) if wrong else ()))
        self.send(name, *arguments, queue=queue)

    def send_stuck_jobs(self, doomed: str) -> None:
        """Send jobs without a worker, jobs that are refused, and one to a worker that dies."""
        for _ in range(2):
            self.send_any(queue="exports")
        for number in (120, 48):
            self.send("send_invoices", number, True)
        self.send("report", CUSTOMERS[1], 64, queue=doomed)

    def send_ended_jobs(self) -> None:
        """Send jobs that end soon, so many that there are ``JOBS`` with the others."""
        for _ in range(JOBS - STUCK - CLOSING - 2 * RUNNING - QUEUED):
            self.send_any()

    def send_closing(self) -> None:
        """Send a job that sends others, which send others again."""
        self.send("close_month", "March 2026", "ada", owner="ada")

    def send_last_jobs(self) -> None:
        """Send jobs that run, jobs that end, and jobs that wait."""
        stops = [100] * RUNNING + [self._random.randrange(8, 97, 4) for _ in range(RUNNING)]
        self._random.shuffle(stops)
        for stop_at in stops:
            self.send_any(stop_at)
        for _ in range(QUEUED):
            self.send_any(queue="mail")


class Listing:
    """The list of all jobs, as the server has it."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=TIMEOUT
        )

    def jobs(self, **filters: str) -> list[dict[str, Any]]:
        answer = self._client.get("/jobs", params={"feed": "all", "limit": "1000", **filters})
        jobs: list[dict[str, Any]] = answer.raise_for_status().json()["jobs"]
        return jobs

    def wait_for(self, number: int, **filters: str) -> None:
        """Wait for jobs, with fewer requests a second than the server permits."""

        def has_jobs() -> bool:
            time.sleep(0.5)
            return len(self.jobs(**filters)) == number

        wait_for(has_jobs, f"{number} jobs {filters}")

    def id_of(self, title: str) -> str:
        return next(str(job["job_id"]) for job in self.jobs() if job["title"] == title)


@contextmanager
def processes(folder: Path) -> Iterator[tuple[Server, Worker]]:
    """Run Valkey, a server with the console, a worker, and one for the job that stalls.

    The names of the workers are those of their queues.
    """
    with ExitStack() as stack:
        valkey = stack.enter_context(running(RedisProcess(folder)))
        valkey.ready()
        url = valkey.url
        os.environ |= {
            "JOBCAST_URL": url, "CELERY_BROKER_URL": url, "CONSOLE_GATE": str(folder / "gate"),
            "JOBCAST_LEASE": "5", "JOBCAST_LOST_AFTER": "3600",
        }  # fmt: skip
        server = Server(folder / "server.log", url, {"JOBCAST_CONSOLE": "/console"})
        stack.enter_context(running(server)).ready()
        workers = [
            Worker(
                folder / f"{name}.log", url, url, "--pool=threads", f"--concurrency={threads}",
                app=APP, name=name,
            )
            for name, threads in (("shop", THREADS), ("night", 1))
        ]  # fmt: skip
        _, doomed = [stack.enter_context(running(worker)).ready() for worker in workers]
        yield server, doomed


def make_jobs(listing: Listing, doomed: Worker) -> None:
    """Send the jobs, and wait until each is in the state that the pictures show."""
    shop = Shop()
    shop.send_stuck_jobs(doomed.name)
    listing.wait_for(1, status="started", task="shop.report")
    doomed.kill()
    shop.send_ended_jobs()
    shop.send_closing()
    listing.wait_for(STATEMENTS, task="shop.statement")
    shop.send_last_jobs()
    listing.wait_for(JOBS)
    listing.wait_for(1, status="stalled")
    listing.wait_for(2, status="retrying")
    listing.wait_for(RUNNING + HELD, status="started")


def visit(browser: Browser, url: str, *, dark: bool = False, phone: bool = False) -> Page:
    """Sign in to the console, and wait until it shows the stuck jobs."""
    context = browser.new_context(
        viewport={"width": 390, "height": 844} if phone else {"width": 1280, "height": 800},
        has_touch=phone,
        is_mobile=phone,
        color_scheme="dark" if dark else "light",
        device_scale_factor=SCALE,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.set_default_timeout(TIMEOUT * 1000)
    page.goto(url)
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    stuck = page.get_by_role("group", name="Show jobs").get_by_role("button", name="Stuck")
    expect(stuck).to_have_text(f"Stuck {STUCK}")
    return page


def open_job(page: Page, job_id: str) -> None:
    """Open the page of a job as a shared link does: the list scrolls to the job."""
    page.goto(f"{page.url.partition('#')[0]}#/jobs/{job_id}")
    page.reload()
    expect(page.locator(f"article[data-job-id='{job_id}']")).to_be_visible()
    expect(page.get_by_role("log")).to_contain_text("Cash flow")


def picture(page: Page) -> Image.Image:
    page.mouse.move(0, 0)  # away from elements with a hover style
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def save(image: Image.Image, name: str) -> None:
    """Save a small image. Its palette has the surfaces, and covers rare colours, too."""
    pixels = image.tobytes()
    shown = Counter(zip(pixels[::3], pixels[1::3], pixels[2::3], strict=True))
    surfaces = [part for colour, _ in shown.most_common(COLOURS) for part in colour]
    others = image.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette(surfaces + others)
    small = image.quantize(palette=palette, dither=Image.Dither.NONE)
    path = FOLDER / f"console-{name}.png"
    small.save(path, optimize=True)
    if path.stat().st_size > MAX_SIZE:
        raise SystemExit(f"{path} has {path.stat().st_size} bytes, more than {MAX_SIZE}")


def side_by_side(*images: Image.Image) -> Image.Image:
    gap = round(24 * SCALE)
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    both = Image.new("RGB", (width, images[0].height), "white")
    left = 0
    for image in images:
        both.paste(image, (left, 0))
        left += image.width + gap
    return both


def make_pictures(browser: Browser, url: str, job_id: str) -> None:
    save(picture(visit(browser, url)), "light")
    save(picture(visit(browser, url, dark=True)), "dark")

    page = visit(browser, url)
    open_job(page, job_id)
    expect(page.locator("li.row[data-open]")).to_be_in_viewport()
    save(picture(page), "job")

    phone = visit(browser, url, phone=True)
    jobs = picture(phone)
    open_job(phone, job_id)
    save(side_by_side(jobs, picture(phone)), "phone")


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("install Debian's chromium")
    expect.set_options(timeout=TIMEOUT * 1000)
    with tempfile.TemporaryDirectory() as folder, processes(Path(folder)) as (server, doomed):
        listing = Listing(server.url)
        make_jobs(listing, doomed)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            title = "Close the books of Lyon"
            make_pictures(browser, f"{server.url}/console/", listing.id_of(title))
            browser.close()


if __name__ == "__main__":
    main()
