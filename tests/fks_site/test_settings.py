"""What the environment says, however a compose file or a manifest writes it down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
READ = """
import json
from fks_site import settings
read = {name: getattr(settings, name) for name in dir(settings) if name.isupper()}
print(json.dumps(read, default=lambda one: type(one).__name__))
"""
NAMES = (
    "ALLOWED_HOSTS", "TRUSTED_PROXIES", "FKS_METRICS_NETWORKS", "FKS_WORKER_METRICS", "FKS_VAR",
    "FKS_RETENTION_DAYS", "FKS_LIVE_TRADING", "FKS_BEHIND_TLS", "FKS_EGRESS_ADDRESS", "DEBUG",
    "TESTNET", "MIN_CONFIDENCE", "RISK_PER_TRADE", "MAX_ORDER_SIZE_USD", "MAX_POSITION_SIZE_USD",
    "RATE_LIMIT_REQUESTS", "RATE_LIMIT_WINDOW", "DEFAULT_EXCHANGE", "LOG_FORMAT", "FKS_TRACE_URL",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)  # fmt: skip


def settings_with(**variables: str) -> dict[str, Any]:
    """All settings, read by a new process."""
    plain = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", READ],
        env=plain | {"SECRET_KEY": "k" * 50} | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(done.stdout)
    return read


@pytest.mark.parametrize("nothing", ["", " "])
def test_a_variable_set_to_nothing_is_not_set(nothing: str) -> None:
    assert settings_with(**dict.fromkeys(NAMES, nothing)) == settings_with()


def test_a_list_may_have_spaces_after_its_commas() -> None:
    read = settings_with(
        ALLOWED_HOSTS="a.example, b.example ,localhost,",
        TRUSTED_PROXIES="10.0.0.0/8, 172.16.0.0/12",
        FKS_METRICS_NETWORKS=" 10.0.0.0/8 , fd00::/8",
    )

    assert read["ALLOWED_HOSTS"] == ["a.example", "b.example", "localhost"]
    assert read["CSRF_TRUSTED_ORIGINS"] == ["https://a.example", "https://b.example"]
    assert read["TRUSTED_PROXIES"] == ["10.0.0.0/8", "172.16.0.0/12"]
    assert read["METRICS_NETWORKS"] == ["10.0.0.0/8", "fd00::/8"]


def test_a_live_account_is_described_only_in_so_many_words() -> None:
    assert settings_with()["FIRST_START"]["testnet"] is True
    assert settings_with(TESTNET=" false ")["FIRST_START"]["testnet"] is False
