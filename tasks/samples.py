"""Sample input for the sample tasks: ``python -m tasks.samples DIR [--scale N]``.

The generated files are the same each time. A larger scale makes the jobs take longer.
"""

import argparse
import csv
import json
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from random import Random

from celery.canvas import Signature
from PIL import Image

from tasks import broken, checksums, flaky, people, thumbnails

# Amounts for a scale of 1:
BOXES = 5
PEOPLE = 20_000
PICTURES = 10
ITEMS = 500
ENTRIES_A_DAY = 12

DISK_SIZE = 50_000_000  # bytes of a sparse file, which uses no disk space
DAYS = 3652  # of the ledger

FIRST_NAMES = (
    "Ada",
    "Bjørn",
    "Chloé",
    "Dmitri",
    "Élodie",
    "Fatima",
    "Grace",
    "Hō",
    "Inês",
    "Jürgen",
)
LAST_NAMES = ("Alvarez", "Brown", "Çelik", "Dvořák", "Eze", "Fischer", "García", "Hüseyin", "Iyer")


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The paths of each task's input and output."""

    tree: Path
    people_csv: Path
    database: Path  # written by import_csv
    images: Path
    thumbnails: Path  # written by make_thumbnails
    feed: Path
    ledger: Path


def make_samples(directory: Path, scale: int = 1) -> Samples:
    """Write the input of all tasks into an empty or new directory.

    Raises:
        ValueError: the scale is less than 1.
        FileExistsError: the directory is not empty.
    """
    if scale < 1:
        raise ValueError(f"the scale should be 1 or more, not {scale}")
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise FileExistsError(f"{directory} should be empty")
    samples = Samples(
        tree=directory / "tree",
        people_csv=directory / "people.csv",
        database=directory / "people.sqlite",
        images=directory / "images",
        thumbnails=directory / "thumbnails",
        feed=directory / "feed.json",
        ledger=directory / "ledger.csv",
    )
    make_tree(samples.tree, scale)
    make_people(samples.people_csv, scale)
    make_images(samples.images, scale)
    make_feed(samples.feed, scale)
    make_ledger(samples.ledger, scale)
    return samples


def signatures(samples: Samples) -> dict[str, Signature]:
    """Return a signature of each task with its sample input, by the task's short name."""
    calls = (
        checksums.hash_tree.s(str(samples.tree)),
        people.import_csv.s(str(samples.people_csv), str(samples.database)),
        thumbnails.make_thumbnails.s(str(samples.images), str(samples.thumbnails)),
        flaky.fetch_feed.s(str(samples.feed)),
        broken.audit_ledger.s(str(samples.ledger)),
    )
    return {call.task.rpartition(".")[2]: call for call in calls}


def make_tree(tree: Path, scale: int) -> None:
    random = Random("tree")
    for shelf in (tree / f"shelf {number:02}" for number in range(scale)):
        for box in (shelf / f"box {number}" for number in range(BOXES)):
            box.mkdir(parents=True)
            for sheet in range(50):
                (box / f"{sheet:02}.bin").write_bytes(random.randbytes(random.randrange(16_384)))
        with (shelf / "disk.img").open("wb") as file:
            file.truncate(DISK_SIZE)
    (tree / "empty.txt").touch()
    (tree / "Grüße aus Łódź.txt").write_text("dzień dobry\n", encoding="utf-8")
    (tree / "gone.txt").symlink_to("nowhere.txt")


def make_people(path: Path, scale: int) -> None:
    """Write people, including one row for each reason of rejection."""
    random = Random("people")
    bad = [
        b"Ada Lovelace",  # fields are missing
        b",nobody@example.com,1990-01-01",
        b"Grace Hopper,grace at example.com,1906-12-09",
        b"Alan Turing,alan@example.com,1912-06-31",
        "Jürgen Müller,juergen@example.com,1970-01-01".encode("latin-1"),
        b"Again,person0@example.com,1970-01-01",  # a duplicate address
    ]
    rows = [person(random, number) for number in range(PEOPLE * scale)]
    for number, row in enumerate(bad, 1):
        rows.insert(len(rows) * number // (len(bad) + 1), row)
    path.write_bytes(b"\n".join([b"name,email,born", *rows, b""]))


def person(random: Random, number: int) -> bytes:
    name = f"{random.choice(FIRST_NAMES)} {random.choice(LAST_NAMES)}"
    born = date(1930, 1, 1) + timedelta(days=random.randrange(75 * 365))
    return f"{name},person{number}@example.com,{born}".encode()


def make_images(images: Path, scale: int) -> None:
    """Write pictures of different sizes, ``scale`` copies of each, and one truncated file."""
    images.mkdir()
    random = Random("images")
    for number in range(PICTURES):
        small = Image.frombytes("RGB", (8, 6), random.randbytes(8 * 6 * 3))
        width = random.randrange(320, 1600)
        picture = small.resize((width, width * 3 // 4), Image.Resampling.BICUBIC)
        first = images / f"picture-{number:02}-000.{'png' if number % 2 else 'jpg'}"
        picture.save(first, compress_level=1)
        for copy in range(1, scale):
            shutil.copy(first, first.with_stem(f"picture-{number:02}-{copy:03}"))
    (images / "broken.jpg").write_bytes((images / "picture-00-000.jpg").read_bytes()[:1000])


def make_feed(path: Path, scale: int) -> None:
    """Write a JSON Feed whose upstream still has two parts to write."""
    random = Random("feed")
    items = [
        {"id": str(number), "authors": [{"name": random.choice(FIRST_NAMES)}]}
        for number in range(ITEMS * scale)
    ]
    feed = {"version": "https://jsonfeed.org/version/1.1", "title": "Samples", "items": items}
    path.write_text(json.dumps(feed), encoding="utf-8")
    Path(f"{path}.busy").write_text("2")


def make_ledger(path: Path, scale: int) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(broken.COLUMNS)
        rows.writerows(entries(ENTRIES_A_DAY * scale))


def entries(a_day: int) -> Iterator[tuple[str, str, str, str]]:
    """Yield ten years of entries. After 4/7 of the days, the balance omits one entry."""
    random = Random("ledger")
    cents = 0
    for number in range(DAYS):
        day = (date(2015, 1, 1) + timedelta(days=number)).isoformat()
        for invoice in range(a_day):
            amount = int(random.gauss(1_000, 50_000))
            if (number, invoice) != (DAYS * 4 // 7, 0):
                cents += amount
            yield day, f"invoice {invoice}", f"{amount / 100:.2f}", f"{cents / 100:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write input for the sample tasks.")
    parser.add_argument("directory", type=Path, help="a new or an empty directory")
    parser.add_argument("--scale", type=int, default=1, help="at 20, jobs last seconds")
    options = parser.parse_args()
    samples = make_samples(options.directory.resolve(), options.scale)
    for call in signatures(samples).values():
        arguments = shlex.quote(json.dumps(call.args))
        print(f"celery -A worker.app call {call.task} --args {arguments}")


if __name__ == "__main__":
    main()
