"""The example package, installed as a third party's would be: into a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
EXAMPLE = ROOT / "examples" / "fks-example-broker"


def run(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    own = {"PYTHONPATH": str(folder)} if folder else {}
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "fks_site.settings"} | own
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    pip = ("-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps")
    done = run(*pip, "--no-build-isolation", "--target", str(folder), str(EXAMPLE))
    assert done.returncode == 0, done.stderr
    return folder


def test_it_is_listed_beside_our_own(installed: Path) -> None:
    listed = json.loads(run("manage.py", "list_brokers", "--json", folder=installed).stdout)
    (example,) = [one for one in listed if one["name"] == "example"]
    assert example["label"] == "Example (a SQLite file)"
    assert {"paper", "ccxt", "alpaca", "oanda"} < {one["name"] for one in listed}
    without = json.loads(run("manage.py", "list_brokers", "--json").stdout)
    assert [one for one in without if one["name"] == "example"] == []


def test_it_keeps_the_promises_of_every_plugin(installed: Path) -> None:
    suite = "tests/brokers/test_contract.py"
    rig = "fks_example_broker.rig:ExampleRig"
    quiet = ("-q", "-p", "no:cacheprovider")
    done = run("-m", "pytest", *quiet, suite, "--rig", rig, folder=installed)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "failed" not in done.stdout


def test_a_package_that_does_not_fit_is_named_and_harms_no_other(tmp_path: Path) -> None:
    info = tmp_path / "misfit-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: misfit\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fks.brokers]\nmisfit = no_such_module:Plugin\n")
    done = run("manage.py", "list_brokers", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "paper: Paper (rehearsal)" in done.stdout
    assert "'misfit' cannot be loaded: No module named 'no_such_module'" in done.stderr
