"""What is checked before anything starts, and that each refusal says what to do."""

from __future__ import annotations

import base64
import os
import shutil
import socket
from pathlib import Path

import pytest

from fks_site import preflight
from fks_site.processes import StartError


@pytest.fixture(autouse=True)
def _no_keys_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECRET_KEY", "CREDENTIAL_KEYS"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)


def test_keys_are_made_once_and_readable_by_us_alone(tmp_path: Path) -> None:
    preflight.ensure_keys(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    preflight.ensure_keys(tmp_path)

    assert made.keys() == {"secret_key", "credential_keys"}
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == made
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert [len(base64.urlsafe_b64decode(key)) for key in made.values()] == [32, 32]


def test_given_keys_are_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "given")
    monkeypatch.setenv("CREDENTIAL_KEYS_FILE", "/run/secrets/keys")
    preflight.ensure_keys(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_lost_credential_key_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    with pytest.raises(StartError) as caught:
        preflight.ensure_keys(tmp_path)
    assert caught.value.code == "CREDENTIAL_KEYS_LOST"
    assert str(tmp_path / "credential_keys") in str(caught.value)


def test_a_taken_port_is_named_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError) as caught:
            preflight.check_port("127.0.0.1", port)
    assert caught.value.code == "PORT_UNAVAILABLE"
    assert str(caught.value) == (
        f"Port {port} is in use: choose another one with --http 127.0.0.1:{port + 1}."
    )
    preflight.check_port("127.0.0.1", port)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(StartError, match=r"192\.0\.2\.1:8000 cannot be listened on"):
        preflight.check_port("192.0.2.1", 8000)


def test_a_name_that_resolves_to_nothing_is_refused() -> None:
    with pytest.raises(StartError, match="cannot be listened on"):
        preflight.check_port("nowhere.invalid", 8000)


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 150_000_000))
    with pytest.raises(StartError) as caught:
        preflight.check_disk(tmp_path)
    assert str(caught.value) == (f"Only 150 MB are free at {tmp_path}; FKS needs at least 200 MB.")


def test_a_directory_serves_one_run_at_a_time(tmp_path: Path) -> None:
    var = tmp_path / "var"
    with preflight.sole_run(var):
        with pytest.raises(StartError) as caught, preflight.sole_run(var):
            pass
        assert caught.value.code == "ALREADY_RUNNING"
        assert str(var) in str(caught.value)
    with preflight.sole_run(var):
        assert not var.stat().st_mode & 0o066


def test_an_unusable_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError) as caught, preflight.sole_run(tmp_path / "file" / "var"):
        pass
    assert caught.value.code == "VAR_NOT_WRITABLE"
    assert os.fspath(tmp_path / "file" / "var") in str(caught.value)
