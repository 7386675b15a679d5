"""A script of troubles for a paper account: what goes wrong with which order.

The script is an option of the account, so that it can be written in the admin and in CI alike. Orders
are counted in the database, by all workers together, from one; another script starts from one again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, DecimalException
from enum import StrEnum
from typing import Any

from brokers.errors import ConfigurationError

LONGEST = 600
"""Seconds a fault may last."""
MOST = 100


class Trouble(StrEnum):
    """What goes wrong with one order.

    REJECT: the venue refuses it. LOST_ANSWER: it is taken, and nobody hears of it. LOST_REQUEST: it
    vanishes on its way, and nobody can tell. LATE: it is taken and answered after ``seconds``.
    PARTIAL: ``share`` of what would fill does, the rest ``seconds`` later. THROTTLED: the venue asks
    to come back after ``seconds``. OUTAGE: nothing answers for ``seconds``, from this order on.
    """

    REJECT = "reject"
    LOST_ANSWER = "lost_answer"
    LOST_REQUEST = "lost_request"
    LATE = "late"
    PARTIAL = "partial"
    THROTTLED = "throttled"
    OUTAGE = "outage"


FIELDS = frozenset({"fault", "order", "every", "symbol", "seconds", "share"})
TIMED = frozenset({Trouble.LATE, Trouble.PARTIAL, Trouble.THROTTLED, Trouble.OUTAGE})


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the script: it strikes the order of that number, or every so many."""

    trouble: Trouble
    order: int
    every: int
    symbol: str
    seconds: int
    share: Decimal

    def strikes(self, number: int, symbol: str) -> bool:
        if self.symbol and self.symbol != symbol:
            return False
        return number == self.order if self.order else number % self.every == 0


def faults(given: object) -> tuple[Fault, ...]:
    """The script of an account's options. Raises ConfigurationError naming the line."""
    if not isinstance(given, list) or len(given) > MOST:
        raise ConfigurationError(f"option faults is a list of at most {MOST} objects")
    return tuple(_fault(number, line) for number, line in enumerate(given, 1))


def _fault(number: int, line: object) -> Fault:
    if not isinstance(line, Mapping):
        raise ConfigurationError(f"option faults, line {number}: not an object")
    unknown = sorted(set(line) - FIELDS)
    if unknown:
        raise ConfigurationError(f"option faults, line {number}: no field {unknown[0]!r}")
    try:
        trouble = Trouble(str(line.get("fault")))
    except ValueError:
        known = ", ".join(Trouble)
        raise ConfigurationError(f"option faults, line {number}: fault is one of {known}") from None
    if ("order" in line) is ("every" in line):
        raise ConfigurationError(f"option faults, line {number}: order or every, one of them")
    if ("share" in line) and trouble is not Trouble.PARTIAL:
        raise ConfigurationError(f"option faults, line {number}: only a partial fill has a share")
    if ("seconds" in line) and trouble not in TIMED:
        raise ConfigurationError(f"option faults, line {number}: {trouble} takes no time")
    return Fault(
        trouble=trouble,
        order=_whole(number, line, "order", 0, 10**9),
        every=_whole(number, line, "every", 0, 10**9),
        symbol=str(line.get("symbol", "")),
        seconds=_whole(number, line, "seconds", 5, LONGEST),
        share=_share(number, line.get("share", "0.5")),
    )


def _whole(line: int, fields: Mapping[str, Any], name: str, default: int, most: int) -> int:
    if name not in fields:
        return default
    value = fields[name]
    if type(value) is not int or not 1 <= value <= most:
        raise ConfigurationError(
            f"option faults, line {line}: {name} is a whole number from 1 to {most}"
        )
    return value


def _share(line: int, given: object) -> Decimal:
    try:
        share = Decimal(str(given))
    except DecimalException:
        share = Decimal("NaN")
    if isinstance(given, bool) or not share.is_finite() or not 0 <= share < 1:
        raise ConfigurationError(f"option faults, line {line}: share lies from 0 to below 1")
    return share


class FaultScript:
    """The script of one account as it runs. Raises django.db.Error like the book itself."""

    def __init__(self, account_key: str, script: tuple[Fault, ...]) -> None:
        self._key = account_key
        self._script = script
        told = json.dumps([[str(part) for part in _parts(one)] for one in script])
        self._digest = hashlib.sha256(told.encode()).hexdigest()

    def next(self, symbol: str, now: datetime) -> Fault | None:
        """Count one order and tell what strikes it; an outage begins with its order."""
        if not self._script:
            return None
        from django.db import transaction

        from brokers.models import PaperScript

        with transaction.atomic(durable=True):
            PaperScript.objects.get_or_create(account_key=self._key)
            row = PaperScript.objects.select_for_update().get(account_key=self._key)
            if row.script != self._digest:
                row.script, row.orders, row.down_until = self._digest, 0, None
            row.orders += 1
            struck = (one for one in self._script if one.strikes(row.orders, symbol))
            fault = next(struck, None)
            if fault is not None and fault.trouble is Trouble.OUTAGE:
                row.down_until = now + timedelta(seconds=fault.seconds)
            row.save()
        return fault

    def is_down(self, now: datetime) -> bool:
        """Whether an outage of this script lasts."""
        if not any(one.trouble is Trouble.OUTAGE for one in self._script):
            return False
        from brokers.models import PaperScript

        down = PaperScript.objects.filter(
            account_key=self._key, script=self._digest, down_until__gt=now
        )
        return down.exists()


def _parts(fault: Fault) -> tuple[object, ...]:
    return (
        fault.trouble, fault.order, fault.every, fault.symbol, fault.seconds, fault.share,
    )  # fmt: skip
