"""Credentials at rest."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from brokers import crypto
from brokers.crypto import DecryptionError

SECRET = {"api_key": "k-canary", "api_secret": "s-canary"}
HERE = "credential of row 1"


def new_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


@pytest.fixture(autouse=True)
def keys(settings: Settings) -> Iterator[list[str]]:
    settings.CREDENTIAL_KEYS = [new_key()]
    return settings.CREDENTIAL_KEYS


def test_what_was_sealed_opens_again_and_shows_nothing() -> None:
    token = crypto.encrypt(SECRET, bound_to=HERE)
    assert crypto.decrypt(token, bound_to=HERE) == SECRET
    assert "canary" not in token
    assert "canary" not in str(base64.urlsafe_b64decode(token.partition(".")[2]))
    assert token.startswith(f"{crypto.current_key_id()}.")


def test_the_same_secret_is_sealed_differently_each_time() -> None:
    assert crypto.encrypt(SECRET, bound_to=HERE) != crypto.encrypt(SECRET, bound_to=HERE)


def test_a_token_of_another_row_does_not_open() -> None:
    token = crypto.encrypt(SECRET, bound_to=HERE)
    with pytest.raises(DecryptionError, match="belongs to another row or was changed"):
        crypto.decrypt(token, bound_to="credential of row 2")


def test_an_older_key_still_opens_and_the_first_one_seals(
    keys: list[str], settings: Settings
) -> None:
    token = crypto.encrypt(SECRET, bound_to=HERE)
    old = crypto.current_key_id()
    settings.CREDENTIAL_KEYS = [new_key(), *keys]
    assert crypto.decrypt(token, bound_to=HERE) == SECRET
    assert crypto.current_key_id() != old
    assert not crypto.encrypt(SECRET, bound_to=HERE).startswith(old)


def test_without_its_key_a_token_stays_shut(settings: Settings) -> None:
    token = crypto.encrypt(SECRET, bound_to=HERE)
    settings.CREDENTIAL_KEYS = [new_key()]
    with pytest.raises(DecryptionError, match="no configured key has the id"):
        crypto.decrypt(token, bound_to=HERE)


@pytest.mark.parametrize("configured", [[], ["c2hvcnQ="], [base64.b64encode(b"x" * 31).decode()]])
def test_unusable_keys_are_refused(settings: Settings, configured: list[str]) -> None:
    settings.CREDENTIAL_KEYS = configured
    with pytest.raises(ValueError, match="CREDENTIAL_KEYS"):
        crypto.encrypt(SECRET, bound_to=HERE)


@pytest.mark.parametrize("length", range(0, 44, 4))
def test_a_truncated_token_does_not_open(length: int) -> None:
    key_id, _, body = crypto.encrypt(SECRET, bound_to=HERE).partition(".")
    with pytest.raises(DecryptionError):
        crypto.decrypt(f"{key_id}.{body[:length]}", bound_to=HERE)


@given(text=st.text(max_size=80))
def test_no_text_at_all_raises_anything_else(text: str) -> None:
    for token in (text, f"{crypto.current_key_id()}.{text}"):
        with pytest.raises(DecryptionError):
            crypto.decrypt(token, bound_to=HERE)


@given(position=st.integers(0, 60), bit=st.integers(0, 7))
def test_one_changed_bit_is_noticed(position: int, bit: int) -> None:
    key_id, _, body = crypto.encrypt(SECRET, bound_to=HERE).partition(".")
    raw = bytearray(base64.urlsafe_b64decode(body))
    raw[position] ^= 1 << bit
    with pytest.raises(DecryptionError):
        crypto.decrypt(f"{key_id}.{base64.urlsafe_b64encode(raw).decode()}", bound_to=HERE)


class TestKeysInAFile:
    @pytest.fixture
    def path(self, tmp_path: Path, settings: Settings, keys: list[str]) -> Path:
        path = tmp_path / "credential_keys"
        path.write_text(keys[0] + "\n")
        settings.CREDENTIAL_KEYS_PATH = path
        return path

    def replace(self, path: Path, *keys: str) -> None:
        """As an operator does: a new file, renamed over the old one."""
        draft = path.with_suffix(".new")
        draft.write_text(",".join(keys) + "\n")
        draft.replace(path)

    def test_another_key_acts_without_a_restart(self, path: Path, keys: list[str]) -> None:
        before, first = crypto.encrypt(SECRET, bound_to=HERE), crypto.current_key_id()
        new = new_key()

        self.replace(path, keys[0], new)
        assert crypto.current_key_id() == first
        self.replace(path, new, keys[0])
        after = crypto.encrypt(SECRET, bound_to=HERE)

        assert crypto.current_key_id() != first
        assert [crypto.decrypt(one, bound_to=HERE) for one in (before, after)] == [SECRET, SECRET]

        self.replace(path, new)
        assert crypto.decrypt(after, bound_to=HERE) == SECRET
        with pytest.raises(DecryptionError):
            crypto.decrypt(before, bound_to=HERE)

    @pytest.mark.parametrize("text", [None, "", "half a key", "c2hvcnQ="])
    def test_while_it_cannot_be_read_the_keys_of_the_start_hold(
        self, path: Path, text: str | None
    ) -> None:
        token = crypto.encrypt(SECRET, bound_to=HERE)
        path.unlink()
        if text is not None:
            path.write_text(text)

        assert crypto.decrypt(token, bound_to=HERE) == SECRET
