"""Takes the documentation's pictures of a running FKS: home, performance, getting started,
a channel, a signal and an order, in both themes and on a phone. Starts nothing.

    python docs/screenshots.py http://127.0.0.1:8000 admin PASSWORD [docs/images]

Needs Playwright and a Chromium (``CHROMIUM``, default /usr/bin/chromium). The newest executed
signal is shown, so post a few alerts first.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SIZES = {"light": (1440, 900), "dark": (1440, 900), "phone": (390, 844)}


def main(base: str, user: str, password: str, target: str = "docs/images") -> None:
    """Save eighteen pictures; print a line for each, and every complaint of the browser's console."""
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for look in SIZES:
            page = _logged_in(browser, look, base, user, password)
            for name, address in _addresses(page, base).items():
                page.goto(address)
                page.wait_for_load_state("networkidle")
                path = folder / f"{name}-{look}.png"
                page.screenshot(path=path, full_page=True)
                print(path)
        browser.close()


def _logged_in(browser: Browser, look: str, base: str, user: str, password: str) -> Page:
    width, height = SIZES[look]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if look == "dark" else "light",
    )
    page = context.new_page()
    page.on("console", lambda message: print(f"console: {message.type}: {message.text}"))
    page.goto(f"{base}/admin/login/")
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(f"{base}/admin/")
    return page


def _addresses(page: Page, base: str) -> dict[str, str]:
    page.goto(f"{base}/admin/execution/signal/?state__exact=executed")
    signal = str(page.locator("#result_list tbody th a").first.get_attribute("href")).partition(
        "?"
    )[0]
    page.goto(f"{base}{signal}")
    order = page.locator(".fks-order h2 a").first.get_attribute("href")
    return {
        "performance": f"{base}/admin/performance/",
        "home": f"{base}/admin/",
        "start": f"{base}/admin/start/",
        "channel": f"{base}/admin/risk/channel/add/",
        "order": f"{base}{order}",
        "signal": f"{base}{signal}",
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
