"""From an authenticated document to a committed Signal: the one statement behind every 202."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.utils import timezone

from brokers.prepared import planned_once
from brokers.symbols import exchange_of, ticker_of
from execution.alerts import Alert
from execution.authentication import digest_of
from execution.ids import uuid7
from execution.models import IdempotencyKey, QuarantinedBody, Strategy
from execution.states import SignalState

# One round trip: the idempotency key decides, and only its winner inserts the signal. An expired key is
# taken over, and so is one that ends minutes after a new one would: it was given before the clock was
# set back, and would swallow alerts of the same words for as long. ON CONFLICT waits for a concurrent
# twin to commit and then sees its row. All take keys in the same order: two statements that wait for
# each other would be a deadlock. A second try may have to win a key of no window back, and finds its
# signal there.
_ACCEPT = """
WITH given AS (
    SELECT * FROM json_to_recordset(%(deliveries)s::json) AS one(
        id uuid, strategy bigint, key text, key_expires_at timestamptz, received_at timestamptz,
        sent_at timestamptz, address inet, auth text, body text, alert jsonb, symbol text, action text
    )
), claim AS (
    INSERT INTO execution_idempotencykey AS held (strategy_id, key, signal_id, expires_at)
    SELECT strategy, key, id, key_expires_at FROM given ORDER BY strategy, key
    ON CONFLICT (strategy_id, key) DO UPDATE
        SET signal_id = EXCLUDED.signal_id, expires_at = EXCLUDED.expires_at
        WHERE (held.expires_at <= %(now)s OR held.expires_at > EXCLUDED.expires_at + interval '5 min')
            AND held.signal_id <> EXCLUDED.signal_id
    RETURNING signal_id
)
INSERT INTO execution_signal
    (id, strategy_id, received_at, sent_at, address, auth, body, alert, symbol, action, state,
     reason, detail, tries)
SELECT id, strategy, received_at, sent_at, address, auth, body, alert, symbol, action, %(state)s,
       '', '', 0
FROM given JOIN claim ON claim.signal_id = given.id
ON CONFLICT (id) DO NOTHING
RETURNING id
"""
_HOLDER = """
SELECT held.signal_id, first.body, first.alert
FROM execution_idempotencykey AS held JOIN execution_signal AS first ON first.id = held.signal_id
WHERE held.strategy_id = %s AND held.key = %s
"""
KEY_REUSED = "KEY_REUSED"
"""The code of a delivery whose key has been another alert's."""
_AMOUNTS = (
    "quantity",
    "quantity_type",
    "reduce_only",
    "market_position",
    "market_position_size",
)
"""What, beside its action and symbol, makes an alert another one than the one with the same id: two
exits of a script in one bar. Not its price or time, which a sender's second try may have anew.
"""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A stored delivery; ``is_duplicate`` when ``signal_id`` belongs to an earlier one. ``other`` says
    what that one asked for where it is another alert, which only has the same key.
    """

    signal_id: UUID
    is_duplicate: bool
    other: str = ""


@dataclass(frozen=True, slots=True)
class Received:
    """What is stored of a delivery, free of credentials; ``raw`` and ``header_key`` only as digests."""

    strategy_id: int
    dedupe_window: int
    raw: bytes = field(repr=False)
    body: str
    alert: Alert
    header_key: str = field(repr=False)
    address: str | None
    auth: str


def accept(received: Received, signal_id: UUID | None = None) -> Accepted:
    """Commit the delivery as a Signal, or find the one it repeats. Raises DatabaseError.

    A ``signal_id`` of the caller's makes a second try safe after an answer was lost: had the first
    been committed after all, the second finds its own row, which is no duplicate.
    """
    [accepted] = accept_all([(received, signal_id or uuid7())])
    return accepted


def accept_all(deliveries: Sequence[tuple[Received, UUID]]) -> list[Accepted]:
    """``accept`` of each, in one statement: what is wrong with one refuses all. Of those with the same
    key, only the first is in it; the others find what became of that one. Raises DatabaseError.
    """
    rows = [_row(received, signal_id) for received, signal_id in deliveries]
    accepted: dict[UUID, Accepted] = {}
    left = rows
    while left:
        first_of_each = {(row["strategy"], row["key"]): row for row in reversed(left)}
        _insert(list(first_of_each.values()), accepted)
        left = [row for row in left if row["id"] not in accepted]
    return [accepted[row["id"]] for row in rows]


def _row(received: Received, signal_id: UUID) -> dict[str, Any]:
    now, alert = timezone.now(), received.alert
    key, key_expires_at = idempotency_key(received, now)
    return {
        "id": signal_id,
        "strategy": received.strategy_id,
        "key": key,
        "key_expires_at": key_expires_at,
        "received_at": now,
        "sent_at": alert.sent_at,
        "address": received.address,
        "auth": received.auth,
        "body": received.body,
        "alert": alert.to_json(),
        "symbol": alert.symbol,
        "action": alert.action.value,
    }


def _insert(rows: Sequence[dict[str, Any]], accepted: dict[UUID, Accepted]) -> None:
    """Store ``rows``, no two of one key, and note what became of each."""
    values = {
        "deliveries": json.dumps(rows, default=str),
        "now": timezone.now(),
        "state": SignalState.RECEIVED.value,
    }
    with planned_once(connection) as cursor:
        cursor.execute(_ACCEPT, values)
        inserted = {signal_id for (signal_id,) in cursor.fetchall()}
        for row in rows:
            if row["id"] in inserted:
                accepted[row["id"]] = Accepted(row["id"], is_duplicate=False)
                continue
            cursor.execute(_HOLDER, [row["strategy"], row["key"]])
            holder, body, stored = cursor.fetchone()
            first = json.loads(stored)
            # The same body may be read otherwise by now, and is no other alert for that.
            is_same = body == row["body"] or _is_same(first, row["alert"])
            other = "" if is_same else asked(first)
            accepted[row["id"]] = Accepted(holder, holder != row["id"], other)


def idempotency_key(received: Received, now: datetime) -> tuple[str, datetime | None]:
    """The delivery's key and when it may be used again: never for a sender's own id or header, nor
    for a signed body: it carries its own time, so the same bytes later are a replay. A header is
    not signed and cannot make a signed body another one; the id of Standard Webhooks is signed, and
    names the delivery whatever the body says.
    """
    if received.auth == Strategy.Auth.STANDARD and received.header_key:
        return f"webhook:{digest_of(received.header_key).hex()}", None
    if received.alert.idempotency_key:
        return f"id:{received.alert.idempotency_key}", None
    key = f"body:{hashlib.sha256(received.raw).hexdigest()}"
    if received.auth == Strategy.Auth.HMAC:
        return key, None
    if received.header_key:
        return _header_name(received.header_key), None
    return key, now + timedelta(seconds=received.dedupe_window)


def keys_apart(alert: Alert) -> tuple[str, str]:
    """What stands for an alert whose id is another alert's: the same on every way it is let in. The
    second is for one that also finds its ticker of another exchange under the first.
    """
    stored = alert.to_json()
    apart = f"reused {alert.idempotency_key} {_meaning(stored)}"
    return apart, f"{apart} {exchange_of(alert.symbol)}"


def stored_as(strategy_id: int, alert: Alert) -> UUID | None:
    """The signal of an alert with an id, be it kept under that id or apart from it."""
    names = (f"id:{alert.idempotency_key}", *map(_header_name, keys_apart(alert)))
    keys = IdempotencyKey.objects.filter(strategy_id=strategy_id, key__in=names)
    told = alert.to_json()
    found = keys.values_list("signal_id", "signal__alert")
    return next((pk for pk, stored in found if _is_same(stored, told)), None)


def stored_under(strategy_id: int, header_key: str) -> UUID | None:
    """The signal that was stored with this ``header_key``."""
    keys = IdempotencyKey.objects.filter(strategy_id=strategy_id, key=_header_name(header_key))
    return keys.values_list("signal_id", flat=True).first()


def asked(alert: Mapping[str, Any]) -> str:
    """What one alert, as it is stored, is told from another by where both have the same id."""
    amounts = [f"{name} {alert[name]}" for name in _AMOUNTS if name in alert]
    return ", ".join([f"{alert['action']} {alert['symbol']}", *amounts])


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two alerts with one id are one: one may leave the exchange out, but not name another."""
    exchanges = {exchange_of(alert["symbol"]) for alert in (one, other)} - {""}
    return len(exchanges) < 2 and _meaning(one) == _meaning(other)


def _meaning(alert: Mapping[str, Any]) -> str:
    """``asked``, however the symbol is written and whatever its exchange."""
    return asked({**alert, "symbol": ticker_of(alert["symbol"])})


def _header_name(key: str) -> str:
    return f"header:{digest_of(key).hex()}"


def quarantine(
    strategy_id: int, body: str, address: str | None, code: str, detail: str
) -> QuarantinedBody:
    """Keep an authenticated body that became no signal. ``body`` is masked already."""
    return QuarantinedBody.objects.create(
        strategy_id=strategy_id,
        received_at=timezone.now(),
        address=address,
        body=body,
        code=code,
        detail=detail,
    )
