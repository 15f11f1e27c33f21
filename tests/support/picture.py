"""Takes the README's picture of a service that runs as it was made.

bin/new /tmp/billing --defaults -d project_name=Billing --run
.venv/bin/python -m tests.support.picture https://localhost:8443 docs/picture.png
"""

import base64
import sys
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

from tests.support.chromium import ARGUMENTS, CHROMIUM

# The home page on a desk, and signing in on a phone at night.
TOGETHER = """
<body style="margin: 0; width: 1190px; height: 1050px; position: relative">
<style>
  img { position: absolute; border-radius: 10px; box-shadow: 0 2px 12px #0006 }
</style>
<img src="data:image/png;base64,%s" style="left: 12px; top: 12px">
<img src="data:image/png;base64,%s" style="right: 12px; top: 72px">
"""


def shoot(
    browser: Browser,
    url: str,
    width: int,
    height: int,
    scheme: Literal["light", "dark"],
) -> str:
    page = browser.new_page(
        ignore_https_errors=True,
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    page.goto(url)
    return base64.b64encode(page.screenshot(full_page=True)).decode()


def main(address: str, file: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        desk = shoot(browser, f"{address}/", 860, 600, "light")
        phone = shoot(browser, f"{address}/login", 320, 600, "dark")
        page = browser.new_page(viewport={"width": 1190, "height": 1050})
        page.set_content(TOGETHER % (desk, phone))
        page.screenshot(path=file, omit_background=True)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
