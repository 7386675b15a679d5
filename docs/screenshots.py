"""Takes pictures of a running FKS in both themes and on a phone: home, performance, getting started,
a channel, a signal, an order, the log-in and the lock-out for the documentation, one of these alone, or
every page: those of the menu, the second factor and the questions before something is done. Starts
nothing.

    python docs/screenshots.py http://127.0.0.1:8000 admin PASSWORD [docs/images]
    python docs/screenshots.py http://127.0.0.1:8000 admin PASSWORD docs/images performance
    python docs/screenshots.py http://127.0.0.1:8000 admin PASSWORD FOLDER every

Needs Playwright and a Chromium (``CHROMIUM``, default /usr/bin/chromium). The newest executed
signal is shown, so post a few alerts first. For the lock-out a name nobody has is locked.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
OUTSIDE = LOG_IN, LOCKED_OUT = "log-in", "locked-out"
NOBODY = f"nobody-{secrets.token_hex(4)}"
"""Locked once for all pictures: an address fails only so often before it is locked as well."""
FIXED = {
    "performance": "/admin/performance/",
    "home": "/admin/",
    "start": "/admin/start/",
    "channel": "/admin/risk/channel/add/",
}
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
            if pages in (*OUTSIDE, "documented", "every"):
                _take_outside(_page(browser, look), base, folder, look, pages)
            if pages not in OUTSIDE:
                page = _page(browser, look)
                _log_in(page, base, user, password)
                page.wait_for_url(f"{base}/admin/")
                for name, address in _wanted(page, base, pages).items():
                    page.goto(address)
                    _take(page, folder, name, look)
        browser.close()


def _page(browser: Browser, look: str) -> Page:
    width, height = SIZES[look]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if look == "dark" else "light",
    )
    page = context.new_page()
    page.on("console", lambda message: print(f"console: {message.type}: {message.text}"))
    return page


def _take(page: Page, folder: Path, name: str, look: str) -> None:
    page.wait_for_load_state("networkidle")
    path, (width, height) = folder / f"{name}-{look}.png", SIZES[look]
    # a window as tall as the page: what sticks to a window's edge would stand in the middle
    tall = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": width, "height": max(height, tall)})
    page.screenshot(path=path, full_page=True)
    page.set_viewport_size({"width": width, "height": height})
    print(path)


def _take_outside(page: Page, base: str, folder: Path, look: str, pages: str) -> None:
    """What is seen before the log-in; the browser's console tells of the lock-out's status 429."""
    if pages != LOCKED_OUT:
        page.goto(f"{base}/admin/login/")
        _take(page, folder, LOG_IN, look)
    if pages != LOG_IN:
        while page.get_by_text("Locked out").count() == 0:
            _log_in(page, base, NOBODY, "wrong")
            page.wait_for_load_state("networkidle")
        _take(page, folder, LOCKED_OUT, look)


def _log_in(page: Page, base: str, user: str, password: str) -> None:
    page.goto(f"{base}/admin/login/")
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")


def _wanted(page: Page, base: str, pages: str) -> dict[str, str]:
    fixed = {name: base + path for name, path in FIXED.items()}
    if pages in fixed:
        return {pages: fixed[pages]}
    addresses = fixed | _story(page, base)
    if pages == "every":
        return _menu(page, base) | _elsewhere(base) | addresses
    return addresses if pages == "documented" else {pages: addresses[pages]}


def _story(page: Page, base: str) -> dict[str, str]:
    """The newest executed signal, and its order."""
    page.goto(f"{base}/admin/execution/signal/?state__exact=executed")
    signal = str(page.locator("#result_list tbody th a").first.get_attribute("href")).partition(
        "?"
    )[0]
    page.goto(f"{base}{signal}")
    order = page.locator(".fks-order h2 a").first.get_attribute("href")
    return {
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
