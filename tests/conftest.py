"""Fixtures for every test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from django.contrib import admin
from django.test import TransactionTestCase

from tests.emptying import empty_tables

# Examples are not timed, nor is making them: a busy machine is no counterexample.
too_slow = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("fks", deadline=None, suppress_health_check=too_slow)
hypothesis.settings.load_profile("fks")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rig",
        metavar="MODULE:CLASS",
        help="run the contract suite (tests/brokers/test_contract.py) over a third party's plugin",
    )


@pytest.fixture(autouse=True)
def quick_passwords(settings: Any) -> None:
    """Passwords are hashed cheaply: what makes a real hash safe would only make tests slow."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def quick_clients(settings: Any) -> None:
    """A static file is looked for when it is asked for; else every test client lists them all."""
    settings.WHITENOISE_AUTOREFRESH = True


@pytest.fixture(scope="session", autouse=True)
def _pages() -> None:
    """The admin's pages are there, as in a web process: many tests go through all of them."""
    admin.autodiscover()


@pytest.fixture(scope="session", autouse=True)
def _quick_emptying() -> Iterator[None]:
    """After each test that commits; those in a transaction are rolled back as ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", lambda _: empty_tables())
        yield
