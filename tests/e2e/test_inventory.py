"""Nothing that can be done in the admin is left without a test that does it in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest

from tests import e2e
from tests.e2e import inventory

pytestmark = pytest.mark.django_db


def _driven() -> set[str]:
    """What the browser tests' markers name; each test holds them to it (``watch``)."""
    modules = [import_module(f"{e2e.__name__}.{one.name}") for one in iter_modules(e2e.__path__)]
    return {deed for module in modules for test in _tests(module) for deed in _named(test)}


def _tests(module: Any) -> Iterator[Any]:
    marks = getattr(module, "pytestmark", [])
    if "browser" in {mark.name for mark in (marks if isinstance(marks, list) else [marks])}:
        yield from (one for name, one in vars(module).items() if name.startswith("test_"))


def _named(test: Any) -> Iterator[str]:
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "drives":
            yield from mark.args


def test_every_deed_is_done_in_a_browser() -> None:
    left = sorted(inventory.deeds() - _driven())
    assert not left, left


def test_no_test_names_a_deed_there_is_not() -> None:
    assert sorted(_driven() - inventory.deeds()) == []
