"""Fixtures for every test."""

from __future__ import annotations

from typing import Any

import pytest


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
