"""Debian's Chromium beside the test's own server: people, what the console said, what was done."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.test import Client
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)
from pytest_django.live_server_helper import LiveServer

from fks_site import roles
from tests.e2e.inventory import deed_of
from tests.factories import UserFactory

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
POLL = 5_100  # milliseconds: a little more than the home page's interval
PATIENCE = 20_000  # milliseconds: a busy machine is no failure
SETTLED = """async () => {
    await document.fonts.ready;
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    const ends = (one) => Number.isFinite(one.effect.getComputedTiming().endTime);
    await Promise.allSettled(document.getAnimations().filter(ends).map((one) => one.finished));
}"""
HOSTILE = (
    "<img src=x onerror=\"window.pwned='yes'\">{{constructor}}<b x-init=\"window.pwned='yes'\">"
)

Watch = Callable[[BrowserContext], None]
PageFor = Callable[..., Page]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not CHROMIUM.exists() and os.environ.get("FKS_REQUIRE_BROWSER") != "1":
        pytest.skip(f"no Chromium at {CHROMIUM}; CHROMIUM names another place")
    expect.set_options(timeout=PATIENCE)
    # Playwright's sync interface runs a loop in this thread, which Django takes for async code.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            yield browser
            browser.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser's console said: errors of ours, violations of the policy, missing files."""
    return []


@pytest.fixture
def watch(request: pytest.FixtureRequest, complaints: list[str]) -> Iterator[Watch]:
    """Notes what pages say and do; what a test's marker ``drives`` names must be among it."""
    done: set[str] = set()

    def begin(context: BrowserContext) -> None:
        context.on("console", lambda message: _note(message, complaints))
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        context.on("response", lambda response: done.update(deed_of(response)))

    yield begin
    marked = request.node.get_closest_marker("drives")
    left = set(marked.args if marked else ()) - done
    assert not left, f"not done in the browser: {sorted(left)}"


@pytest.fixture
def page_for(chromium: Browser, live_server: LiveServer, watch: Watch) -> Iterator[PageFor]:
    """Makes a page in a browser of that person's own; keyword arguments describe the device.

    ``None`` is nobody yet: the page is not logged in.
    """
    cache.clear()
    contexts = []

    def make(user: User | None, **device: Any) -> Page:
        context = chromium.new_context(base_url=live_server.url, **device)
        contexts.append(context)
        watch(context)
        if user is not None:
            context.add_cookies([_session(user, live_server.url)])
        return context.new_page()

    yield make
    leave(contexts)


@pytest.fixture
def open_page(page_for: PageFor) -> PageFor:
    """Makes a page that shows a superuser the home page."""

    def make(**device: Any) -> Page:
        page = page_for(UserFactory.create(is_superuser=True), **device)
        page.goto("/admin/")
        return page

    return make


def person(name: str, role: str) -> User:
    """A user with one of the four roles."""
    roles.install()
    user = UserFactory.create(username=name)
    user.groups.add(Group.objects.get(name=role))
    return user


def leave(contexts: Iterable[BrowserContext]) -> None:
    """Close them, and wait for the answers under way: the next test must not find their rows."""
    for context in contexts:
        context.close()
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(10)


def settled(page: Page) -> None:
    """Wait until the page looks as it will: its fonts are there and nothing moves any more."""
    page.evaluate(SETTLED)


def with_clock(page: Page) -> Page:
    """The page with a clock the test moves."""
    page.clock.install()
    page.reload()
    return page


def _session(user: User, url: str) -> Any:
    """The cookie of somebody who has logged in."""
    client = Client()
    client.force_login(user, "django.contrib.auth.backends.ModelBackend")
    return {"name": "sessionid", "value": client.cookies["sessionid"].value, "url": url}


def _note(message: ConsoleMessage, complaints: list[str]) -> None:
    if message.type in ("error", "warning"):
        complaints.append(f"{message.type}: {message.text}")
