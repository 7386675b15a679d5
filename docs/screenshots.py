"""Takes pictures of a running FKS in both themes and on a phone: home, performance, getting started,
a channel, a signal and an order for the documentation, one of these alone, or every page: those of the
menu, the second factor and the questions before something is done. Starts nothing.

    python docs/screenshots.py http://127.0.0.1:8000 admin PASSWORD [docs/images]
    python docs/screenshots.py http://127.0.0.1:8000 admin PASSWORD docs/images performance
    python docs/screenshots.py http://127.0.0.1:8000 admin PASSWORD FOLDER every

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


def main(
    base: str, user: str, password: str, target: str = "docs/images", pages: str = "documented"
) -> None:
    """Save three pictures a page; print a line for each, and what the browser's console says."""
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for look in SIZES:
            page = _logged_in(browser, look, base, user, password)
            addresses = _addresses(page, base)
            if pages == "every":
                addresses = _menu(page, base) | _elsewhere(base) | addresses
            elif pages != "documented":
                addresses = {pages: addresses[pages]}
            for name, address in addresses.items():
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


def _elsewhere(base: str) -> dict[str, str]:
    """Pages no menu leads to."""
    return {
        "second-factor": f"{base}/admin/second-factor/",
        "sign-out-everywhere": f"{base}/admin/sign-out-everywhere/",
        "password": f"{base}/admin/password_change/",
        "halt": f"{base}/admin/trading/?mode=halt",
        "compare": f"{base}/admin/execution/difference/compare",
    }


def _menu(page: Page, base: str) -> dict[str, str]:
    """Every page the menu leads to, by the end of its path."""
    page.goto(f"{base}/admin/")
    links = page.locator("#nav-sidebar a, nav a").evaluate_all(
        "all => all.map(one => one.pathname)"
    )
    paths = sorted({link for link in links if link.startswith("/admin/") and link != "/admin/"})
    return {
        path.removeprefix("/admin/").strip("/").replace("/", "-"): base + path for path in paths
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
