"""The proof on the user's own demo account: what no test elsewhere can show.

Through the running agent, as FKS would ask it: place a limit order far from the market, send the same
id again, find it, cancel it, see it gone. Refused on a real account.
"""

from __future__ import annotations

import hashlib
import ssl
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Decimal
from typing import Any

from brokers.bridge.client import BridgeClient
from brokers.bridge.codec import dump, load
from brokers.bridge.hello import Hello
from brokers.bridge.settings import Settings
from brokers.types import (
    CancelResult,
    ExecutionResult,
    Instrument,
    OrderRef,
    OrderReport,
    OrderRequest,
    OrderType,
    Outcome,
    Quote,
    Side,
    VenueStatus,
)

FAR = Decimal("0.9")
"""Of the bid: no market falls by a tenth within a minute, and no venue's limits are that narrow."""
SECONDS = 60
Say = Callable[[str], None]


def run(settings: Settings, account: str, symbol: str, price: str | None, say: Say) -> int:
    """0 when every step did what it must. ``price`` is for terminals that tell none.

    Raises BridgeError or BridgeRefusal.
    """
    scheme = "http" if settings.certificate is None else "https"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    test = _Test(settings, f"{scheme}://{host}:{settings.port}", account, symbol, price, say)
    return test.run()


class _Test:
    def __init__(
        self,
        settings: Settings,
        url: str,
        account: str,
        symbol: str,
        price: str | None,
        say: Say,
    ) -> None:
        pin = ""
        if settings.certificate is not None:
            pin = fingerprint(settings.certificate.read_text(encoding="ascii"))
        self._client = BridgeClient(url, settings.key, pin, vpn=True)
        self._account, self._symbol, self._say = account, symbol, say
        self._price = price

    def run(self) -> int:
        hello: Hello = self._ask("hello", Hello)
        self._say(f"agent {hello.version}, {hello.driver}, account {hello.account}")
        if hello.is_live:
            self._say("FAIL the terminal is on a real account: the self-test is for demo accounts")
            return 1
        if hello.dry_run:
            self._say("FAIL dry_run is on: nothing would be placed")
            return 1
        request = self._far_order()
        steps = (self._places, self._repeats, self._finds, self._cancels, self._sees_it_gone)
        return 0 if all(step(request) for step in steps) else 1

    def _far_order(self) -> OrderRequest:
        rules: Instrument = self._ask("instrument", Instrument, symbol=self._symbol)
        quote: Quote = self._ask("quote", Quote, symbol=self._symbol, hint=self._price)
        steps = (quote.bid * FAR / rules.price_tick).to_integral_value(ROUND_FLOOR)
        return OrderRequest(
            identity=uuid.uuid4().hex,
            symbol=self._symbol,
            side=Side.BUY,
            type=OrderType.LIMIT,
            quantity=rules.min_quantity or rules.quantity_step,
            price=steps * rules.price_tick,
        )

    def _places(self, request: OrderRequest) -> bool:
        result = self._place(request)
        return self._judge("placed", result.outcome is Outcome.ACCEPTED, result.detail)

    def _repeats(self, request: OrderRequest) -> bool:
        result = self._place(request)
        reports: tuple[OrderReport, ...] = self._ask(
            "open_orders", tuple[OrderReport, ...], symbol=self._symbol
        )
        ours = [one for one in reports if one.broker_order_id == result.broker_order_id]
        return self._judge("the same id again is the same order", len(ours) == 1, result.detail)

    def _finds(self, request: OrderRequest) -> bool:
        report = self._report(request)
        found = report is not None and report.quantity == request.quantity
        return self._judge("found by its id alone", found, "" if found else repr(report))

    def _cancels(self, request: OrderRequest) -> bool:
        result: CancelResult = self._ask("cancel_order", CancelResult, ref=_ref(request))
        return self._judge("cancelled", result.outcome is Outcome.ACCEPTED, result.detail)

    def _sees_it_gone(self, request: OrderRequest) -> bool:
        end = time.monotonic() + SECONDS
        report = self._report(request)
        while report is not None and report.status is VenueStatus.OPEN and time.monotonic() < end:
            time.sleep(1)
            report = self._report(request)
        gone = report is not None and report.status is VenueStatus.CANCELED
        return self._judge("seen as cancelled", gone, "" if gone else repr(report))

    def _place(self, request: OrderRequest) -> ExecutionResult:
        told = {"request": dump(request), "is_live": False}
        result: ExecutionResult = self._ask("execute_order", ExecutionResult, **told)
        return result

    def _report(self, request: OrderRequest) -> OrderReport | None:
        report: OrderReport | None = self._ask("fetch_order", OrderReport | None, ref=_ref(request))
        return report

    def _judge(self, what: str, passed: bool, detail: str) -> bool:
        self._say(f"{'ok  ' if passed else 'FAIL'} {what}{f': {detail}' if detail else ''}")
        return passed

    def _ask(self, call: str, kind: Any, **told: Any) -> Any:
        return load(kind, self._client.ask(call, {"account": self._account, **told}, SECONDS))


def _ref(request: OrderRequest) -> dict[str, Any]:
    ref: dict[str, Any] = dump(OrderRef(request.identity, request.symbol, "", datetime.now(UTC)))
    return ref


def fingerprint(pem: str) -> str:
    """The SHA-256 of the first certificate in ``pem``, as FKS pins it."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
