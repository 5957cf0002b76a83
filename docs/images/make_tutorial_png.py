"""Makes tutorial.png by following the tutorial. Needs Chromium.

python -m docs.images.make_tutorial_png
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.e2e.browser.test_tutorial import SERVE, open_page, reading, wait_for_progress
from tests.support import running

PERCENT = 60  # shown in the picture


def main() -> None:
    chromium = shutil.which("chromium")
    with (
        tempfile.TemporaryDirectory() as folder,
        reading(Path(folder)) as reader,
        running(reader.serve(SERVE)),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = open_page(browser, reader.url)
        page.get_by_role("button", name="Convert").click()
        wait_for_progress(page, PERCENT)
        page.screenshot(path=Path(__file__).with_name("tutorial.png"))
        browser.close()


if __name__ == "__main__":
    main()
