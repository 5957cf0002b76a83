"""Make console-*.png from a real run of the demo, in a real browser. Needs tmux and Chromium.

python docs/images/make_console_png.py
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

SESSION = "jobcast-console"
TIMEOUT = 240  # seconds
SCALE = 2  # device pixels to one of the page
COLOURS = 200
HALF_WAY = 45  # percent that the running job has reached in the picture
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip


def tmux(*arguments: str) -> str:
    return subprocess.run(
        ["tmux", *arguments], check=True, text=True, stdout=subprocess.PIPE
    ).stdout


def address() -> str:
    """Return the address of the demo's page once the demo has printed it."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        shown = re.search(r"open (http://[\d.:]+)", tmux("capture-pane", "-p", "-t", SESSION))
        if shown:
            return shown.group(1)
        time.sleep(0.1)
    raise SystemExit("the demo did not print the address of its page")


def visit(browser: Browser, url: str, *, dark: bool = False, phone: bool = False) -> Page:
    context = browser.new_context(
        viewport={"width": 390, "height": 844} if phone else {"width": 1280, "height": 800},
        color_scheme="dark" if dark else "light",
        device_scale_factor=SCALE,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.set_default_timeout(TIMEOUT * 1000)
    page.goto(url)
    page.get_by_role("form", name="Sign in").get_by_role("button", name="Sign in").click()
    page.locator("li.row[data-status=complete]").first.wait_for()
    return page


def open_job(page: Page, status: str, title: str = "") -> None:
    row = page.locator(f"li.row[data-status={status}]").filter(has_text=title).first
    row.get_by_role("link").click()
    page.locator(f"article[data-status={status}] [role=log]").wait_for()


def wait_half_way(page: Page) -> None:
    """Wait until the open job has reached HALF_WAY."""
    bar = page.locator("article[data-status=started]").get_by_role("progressbar")
    while int(bar.get_attribute("aria-valuenow") or 0) < HALF_WAY:
        time.sleep(0.1)


def picture(page: Page) -> Image.Image:
    page.mouse.move(0, 0)  # away from elements with a hover style
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def save(image: Image.Image, name: str) -> None:
    """Save a small image with its most frequent colours: the edges of letters are near to one."""
    pixels = image.tobytes()
    shown = Counter(zip(pixels[::3], pixels[1::3], pixels[2::3], strict=True))
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour, _ in shown.most_common(COLOURS) for part in colour])
    small = image.quantize(palette=palette, dither=Image.Dither.NONE)
    small.save(Path(__file__).with_name(f"console-{name}.png"), optimize=True)


def side_by_side(*images: Image.Image) -> Image.Image:
    gap = 24 * SCALE
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    both = Image.new("RGB", (width, images[0].height), "white")
    left = 0
    for image in images:
        both.paste(image, (left, 0))
        left += image.width + gap
    return both


def make_pictures(browser: Browser, url: str) -> None:
    light = visit(browser, url)  # the first job has ended; these follow the last one
    tasks = light.get_by_role("list", name="Tasks")
    tasks.get_by_role("button", name="Start with the sample: Import people").click()
    tasks.get_by_role("button", name="Start Hash a folder").click()
    light.locator("li.row[data-status=error]").wait_for()
    open_job(light, "started", "Import people")
    wait_half_way(light)
    save(picture(light), "light")

    dark = visit(browser, url, dark=True)
    open_job(dark, "error")
    save(picture(dark), "dark")

    phone = visit(browser, url, phone=True)
    jobs = picture(phone)
    open_job(phone, "error")
    save(side_by_side(jobs, picture(phone)), "phone")


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("install Debian's chromium")
    command = f"{sys.executable} -m jobcast.cli demo --port 0"
    tmux("new-session", "-d", "-s", SESSION, "-x", "120", "-y", "50", command)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            make_pictures(browser, address())
            browser.close()
    finally:
        tmux("send-keys", "-t", SESSION, "C-c")
        while (
            subprocess.run(["tmux", "has-session", "-t", SESSION], capture_output=True).returncode
            == 0
        ):
            time.sleep(0.1)


if __name__ == "__main__":
    main()
