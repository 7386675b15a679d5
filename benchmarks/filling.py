"""Fills a throw-away database by COPY with what months of trading leave behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

DAYS = 90
STATES = ("filled",) * 15 + ("denied",) * 3 + ("rejected", "canceled")
SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT")
RULES = ("max_order_value", "max_open_orders", "daily_loss", "max_spread")
KINDS = ("strategy.changed", "limit.changed", "login.succeeded", "order.cancel_asked")
VERDICTS = json.dumps(
    [
        {
            "rule": rule, "passed": True, "mode": "enforce", "code": "", "detail": f"{rule} was judged",
            "numbers": {"measured": "600", "allowed": "1000"},
        }
        for rule in RULES
    ]
)  # fmt: skip
SIZING = json.dumps([{"label": "equity × risk", "formula": "100000 × 0.02", "result": "2000"}])
LONG_AGO = 3
"""The first third of the time had another strategy and another account, and what is rare."""
RARE = 500


class Filling:
    """Two strategies and two accounts: one of each ended two months ago."""

    def __init__(self) -> None:
        from brokers.models import Account
        from execution.models import Strategy

        self.accounts = [
            Account.objects.create(name=name, broker="paper") for name in ("ended", "paper")
        ]
        self.strategies = [Strategy.objects.create(slug=slug) for slug in ("retired", "trend")]

    def fill(self, rows: int) -> None:
        """Load ``rows`` signals and as many orders of the last ninety days, with all they leave."""
        from django.db import connection

        now = datetime.now(UTC)
        step = timedelta(days=DAYS) / rows
        moments = [now - timedelta(days=DAYS) + step * number for number in range(rows)]
        for table, columns, made in (
            ("execution_signal", SIGNAL, self._signals),
            ("execution_order", ORDER, self._orders),
            ("execution_orderevent", EVENT, self._journal),
            ("execution_fill", FILL, self._fills),
            ("execution_quarantinedbody", BODY, self._bodies),
            ("risk_limithit", HIT, self._hits),
            ("risk_auditevent", AUDIT, self._audit),
        ):
            _copy(connection, table, columns, made(moments))
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")

    def _place(self, number: int, count: int) -> tuple[int, int, bool]:
        """Strategy and account of that time, and whether this row is one of the rare."""
        is_early = number < count // LONG_AGO
        chosen = 0 if is_early else 1
        is_rare = is_early and number % RARE == 0
        return self.strategies[chosen].pk, self.accounts[chosen].pk, is_rare

    def _signals(self, moments: list[datetime]) -> Iterator[tuple[Any, ...]]:
        for number, at in enumerate(moments):
            strategy, _, is_rare = self._place(number, len(moments))
            state = "executed" if STATES[number % 20] == "filled" else "denied"
            reason = "" if state == "executed" else "MAX_ORDER_VALUE"
            yield (
                made_id(at, 1, number), strategy, at, "token", "{}", '{"action": "buy"}',
                SYMBOLS[number % 5], "close" if is_rare else "buy", state, reason, "", "", at, at, 0,
            )  # fmt: skip

    def _orders(self, moments: list[datetime]) -> Iterator[tuple[Any, ...]]:
        for number, at in enumerate(moments):
            strategy, account, is_rare = self._place(number, len(moments))
            identity, state = made_id(at, 2, number), STATES[number % 20]
            filled = "0.01" if state == "filled" else "0"
            sent = None if state == "denied" else at
            reason = "" if state == "filled" else "MAX_ORDER_VALUE"
            yield (
                identity, made_id(at, 1, number), strategy, account,
                SYMBOLS[number % 5], "sell" if number % 2 else "buy",
                "stop" if is_rare else "market", "entry", "0.01",
                "gtc", False, False, False, "60000", "600", state, reason, "", VERDICTS, SIZING,
                "", "", identity.hex, f"v{number}-{at.timestamp()}", filled, "60000", 1, sent, sent,
                0, 0, at, at, at,
            )  # fmt: skip

    def _journal(self, moments: list[datetime]) -> Iterator[tuple[Any, ...]]:
        for number, at in enumerate(moments):
            order, state = made_id(at, 2, number), STATES[number % 20]
            yield (order, at, "create", "", "pending", 0, "worker", "", "{}")
            yield (order, at, "end", "pending", state, 1, "worker", "", '{"answer": "ok"}')

    def _fills(self, moments: list[datetime]) -> Iterator[tuple[Any, ...]]:
        for number, at in enumerate(moments):
            if STATES[number % 20] == "filled":
                _, account, _ = self._place(number, len(moments))
                yield (
                    account, made_id(at, 2, number), f"t{at.timestamp()}-{number}",
                    SYMBOLS[number % 5], "sell" if number % 2 else "buy", "0.01", "60000", "0.1",
                    "USDT", str(number % 7 - 3), at, at,
                )  # fmt: skip

    def _bodies(self, moments: list[datetime]) -> Iterator[tuple[Any, ...]]:
        for number, at in enumerate(moments[::50]):
            code = "UNKNOWN_ACTION" if number % 7 else "NOT_JSON"
            yield (self.strategies[0].pk, at, '{"action": "dance"}', code, "no such action")

    def _hits(self, moments: list[datetime]) -> Iterator[tuple[Any, ...]]:
        for number, at in enumerate(moments):
            if STATES[number % 20] == "denied":
                _, account, _ = self._place(number, len(moments))
                yield (
                    at, "denied", RULES[number % 4], "everything", account, "trend",
                    SYMBOLS[number % 5], made_id(at, 2, number), "1200 is over 1000",
                )  # fmt: skip

    def _audit(self, moments: list[datetime]) -> Iterator[tuple[Any, ...]]:
        for number, at in enumerate(moments[::10]):
            actor = "rarely" if number % 10_000 == 0 else "admin"
            yield (at, KINDS[number % 4], actor, "", "strategy trend", "why not", "", "", "")


def made_id(at: datetime, sort: int, number: int) -> UUID:
    """A UUID version 7 of that moment."""
    moment = int(at.timestamp() * 1000) << 80
    return UUID(int=moment | 0x7 << 76 | 0x2 << 62 | sort << 48 | number)


def _copy(connection: Any, table: str, columns: str, rows: Iterator[tuple[Any, ...]]) -> None:
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy,
    ):
        write: Callable[[Any], None] = copy.write_row
        for row in rows:
            write(row)


SIGNAL = (
    "id, strategy_id, received_at, auth, body, alert, symbol, action, state, reason, detail, gap, "
    "decided_at, finished_at, tries"
)
ORDER = (
    "id, signal_id, strategy_id, account_id, symbol, side, type, role, quantity, time_in_force, "
    "post_only, reduce_only, reverses, reference_price, reserved_value, state, reason, detail, "
    "verdicts, sizing, cancel_reason, cancel_asked_by, client_order_id, broker_order_id, "
    "filled_quantity, average_price, attempt, submitted_at, acknowledged_at, looks, polls, "
    "created_at, updated_at, finished_at"
)
EVENT = "order_id, at, event, from_state, to_state, attempt, actor, detail, evidence"
FILL = (
    "account_id, order_id, trade_id, symbol, side, quantity, price, fee, fee_currency, "
    "realised_pnl, at, recorded_at"
)
BODY = "strategy_id, received_at, body, code, detail"
HIT = "at, kind, rule, scope, account_id, strategy, symbol, order_id, detail"
AUDIT = "at, kind, actor, address, subject, reason, correlation_id, hash, previous"
