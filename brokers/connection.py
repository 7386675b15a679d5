"""Whether an account's venue answers, asked from a process of its own: no SDK enters the web server."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

from django.conf import settings

from brokers.models import Account

SECONDS = 20


@dataclass(frozen=True, slots=True)
class Connection:
    """What the venue told. ``None`` where it does not tell; times in milliseconds."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    latency_ms: int | None = None
    clock_skew_ms: int | None = None
    may_trade: bool | None = None
    may_withdraw: bool | None = None
    ip_restricted: bool | None = None


def test_connection(account: Account) -> Connection:
    """Ask for health, permissions and clock; whatever goes wrong is a problem in words."""
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "check_account", account.name]
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Connection((f"the venue gave no answer within {SECONDS} s",))
    if not done.stdout:
        return Connection((_last_line(done.stderr),))
    told = json.loads(done.stdout)
    return Connection(
        problems=tuple(told["problems"]),
        warnings=tuple(told["warnings"]),
        latency_ms=told["latency_ms"],
        clock_skew_ms=told["clock_skew_ms"],
        may_trade=told["may_trade"],
        may_withdraw=told["may_withdraw"],
        ip_restricted=told["ip_restricted"],
    )


def _last_line(text: str) -> str:
    """The sentence of a command that gave up; it names no secret."""
    lines = text.strip().splitlines() or ["the check ended without a word; see the log"]
    return lines[-1].removeprefix("CommandError: ")
