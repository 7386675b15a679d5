"""What the ccxt plugin makes of every way an exchange can fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

import pytest

from brokers import venue_client
from brokers.errors import QueryFailedError
from brokers.plugins.ccxt import CcxtPlugin
from brokers.types import (
    Outcome,
    VenueStatus,
)
from tests.brokers.contract import (
    CCXT_VENUES,
    SYMBOLS,
    ccxt_plugin,
    limit,
    order,
    ref,
)
from tests.venues.client import RunningVenue
from tests.venues.faults import Action, Endpoint, Fault, When

EXCHANGES = CCXT_VENUES
ACCEPTED, REJECTED, NOT_SENT, UNKNOWN = (
    Outcome.ACCEPTED,
    Outcome.REJECTED,
    Outcome.NOT_SENT,
    Outcome.UNKNOWN,
)
SHORT_TIMEOUT_MS = 400
TOO_LONG_S = 0.8

BOTH_SIDES = [
    (Fault(Action.DROP), UNKNOWN),
    *((Fault(Action.STATUS, status=s), UNKNOWN) for s in (403, 404, 418, 429, 500, 502, 503, 504)),
    (Fault(Action.HANG, seconds=TOO_LONG_S), UNKNOWN),
]
BEFORE = [(fault, outcome, When.BEFORE) for fault, outcome in BOTH_SIDES]
AFTER = [(fault, outcome, When.AFTER) for fault, outcome in BOTH_SIDES] + [
    (Fault(Action.TRUNCATE), UNKNOWN, When.AFTER),
    (Fault(Action.CUT_JSON), UNKNOWN, When.AFTER),
    (Fault(Action.EMPTY), UNKNOWN, When.AFTER),
    (Fault(Action.HTML), UNKNOWN, When.AFTER),
]
AMBIGUOUS = {
    "binance": ["-1000", "-1001", "-1006", "-1007", "-1008", "-1003", "-1015"],
    "kraken": [
        "EService:Deadline elapsed",
        "EService:Unavailable",
        "EGeneral:Internal error",
        "EAPI:Rate limit exceeded",
        "EOrder:Rate limit exceeded",
    ],
    "bybit": ["10000", "10016", "170001", "170007", "170146", "170149", "10006"],
    "bybit-linear": ["10000", "10016", "10006"],
    "okx": ["50001", "50004", "50013", "50026", "51149", "50011"],
    "okx-swap": ["50001", "50004", "50013", "50026", "51149", "50011"],
}
PATIENCE = {
    "binance": ["-1021"],
    "kraken": ["EAPI:Invalid nonce"],
    "bybit": ["10002"],
    "bybit-linear": ["10002"],
    "okx": ["50102"],
    "okx-swap": ["50102"],
}
CODES = [
    (exchange, Fault(Action.CODE, when, code=code), UNKNOWN, when)
    for exchange, codes in AMBIGUOUS.items()
    for code in codes
    for when in When
] + [
    (exchange, Fault(Action.CODE, When.BEFORE, code=code), NOT_SENT, When.BEFORE)
    for exchange, codes in PATIENCE.items()
    for code in codes
]
EVERY = [(e, fault, outcome, when) for e in EXCHANGES for fault, outcome, when in BEFORE + AFTER]


def named(value: object) -> str:
    if isinstance(value, Fault):
        return f"{value.action}{value.code or (value.status if value.action == 'status' else '')}"
    return str(value)


@pytest.mark.parametrize(("exchange", "fault", "outcome", "when"), EVERY + CODES, ids=named)
def test_every_fault_is_judged_by_what_it_proves(
    venue: RunningVenue,
    monkeypatch: pytest.MonkeyPatch,
    exchange: str,
    fault: Fault,
    outcome: Outcome,
    when: When,
) -> None:
    monkeypatch.setattr(venue_client, "TIMEOUT_MS", SHORT_TIMEOUT_MS)
    plugin, request = ccxt_plugin(exchange, venue.base_url), order(symbol=SYMBOLS[exchange])
    plugin.instrument(SYMBOLS[exchange])
    venue.control.queue_faults(Fault.from_json(fault.as_json() | {"when": when}))
    result = plugin.execute_order(request)
    assert result.outcome is outcome, result
    assert result.retry_after is not None or outcome is not NOT_SENT
    assert result.evidence["sent"] is True
    placed = len(venue.control.ledger(exchange).by_client_id(request.identity))
    assert placed == (1 if when is When.AFTER else 0)
    assert (plugin.fetch_order(ref(request)) is not None) is bool(placed)
    assert plugin.execute_order(order(symbol=SYMBOLS[exchange])).outcome is ACCEPTED


QUERIES: dict[str, Callable[[CcxtPlugin, str], object]] = {
    "fetch_order": lambda p, symbol: p.fetch_order(ref(order(symbol=symbol))),
    "open_orders": lambda p, _: p.open_orders(),
    "trades_since": lambda p, symbol: p.trades_since(symbol, datetime.now(UTC) - timedelta(days=1)),
    "balances": lambda p, _: p.balances(),
    "check_permissions": lambda p, _: p.check_permissions(),
}


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_question_without_a_trustworthy_answer_is_never_answered_none_or_empty(
    venue: RunningVenue, exchange: str, query: str
) -> None:
    plugin = ccxt_plugin(exchange, venue.base_url)
    plugin.execute_order(order(symbol=SYMBOLS[exchange]))
    actions = (Action.DROP, Action.TRUNCATE, Action.CUT_JSON, Action.EMPTY, Action.HTML)
    faults = [Fault(action, endpoint=Endpoint.ANY) for action in actions]
    faults += [Fault(Action.STATUS, endpoint=Endpoint.ANY, status=s) for s in (302, 429, 500, 503)]
    for fault in faults:
        venue.control.queue_faults(fault)
        with pytest.raises(QueryFailedError):
            QUERIES[query](plugin, SYMBOLS[exchange])
        assert venue.control.pending_faults() == []


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_cancel_nobody_confirmed_proves_nothing(venue: RunningVenue, exchange: str) -> None:
    plugin, request = ccxt_plugin(exchange, venue.base_url), limit(symbol=SYMBOLS[exchange])
    placed = plugin.execute_order(request)
    named = ref(request, placed.broker_order_id)
    for fault in (
        Fault(Action.DROP, When.BEFORE, endpoint=Endpoint.CANCEL),
        Fault(Action.STATUS, When.BEFORE, endpoint=Endpoint.CANCEL, status=503),
        Fault(Action.CUT_JSON, endpoint=Endpoint.CANCEL),
    ):
        venue.control.queue_faults(fault)
        result = plugin.cancel_order(named)
        assert result.outcome is UNKNOWN
        assert result.evidence["sent"] is True
    report = plugin.fetch_order(named)
    assert report is not None
    assert report.status is VenueStatus.CANCELED


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_an_order_not_yet_shown_is_absent_for_now(venue: RunningVenue, exchange: str) -> None:
    plugin, request = ccxt_plugin(exchange, venue.base_url), order(symbol=SYMBOLS[exchange])
    venue.control.set_visibility_delay(3_600_000)
    venue.control.queue_faults(Fault(Action.DROP, When.AFTER))
    assert plugin.execute_order(request).outcome is UNKNOWN
    assert plugin.fetch_order(ref(request)) is None
    assert plugin.capabilities.settle_window >= 15


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_nobody_listening_means_nothing_was_sent(exchange: str) -> None:
    with relay(lambda _: None) as (address, _seen):
        pass
    plugin = ccxt_plugin(exchange, address)
    result = plugin.execute_order(order(symbol=SYMBOLS[exchange]))
    assert (result.outcome, result.code) == (NOT_SENT, "VENUE_UNREACHABLE")
    assert result.retry_after == 1
    assert plugin.health_check().ok is False
    with pytest.raises(QueryFailedError):
        plugin.balances()
    with pytest.raises(QueryFailedError):
        plugin.instrument(SYMBOLS[exchange])
    assert plugin.cancel_order(ref(order(symbol=SYMBOLS[exchange]))).outcome is NOT_SENT


@contextmanager
def relay(
    place: Callable[[BaseHTTPRequestHandler], None], behind: str = ""
) -> Iterator[tuple[str, list[str]]]:
    """A gateway: reads go to the venue ``behind``, orders to ``place``; and the orders seen."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with urlopen(behind + self.path) as answer:  # noqa: S310 - a loopback test venue
                body = answer.read()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            seen.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            place(self)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_an_order_follows_no_redirect(venue: RunningVenue, status: int) -> None:
    def send_away(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Location", venue.base_url + handler.path)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with relay(send_away, venue.base_url) as (address, seen):
        result = ccxt_plugin("binance", address).execute_order(order())
    assert result.outcome is UNKNOWN
    assert len(seen) == 1
    assert venue.control.ledger("binance").orders == []


@pytest.mark.parametrize(
    "answer",
    [
        '{"orderId":5,"clientOrderId":"another","status":"NEW"}',
        '{"clientOrderId":"x"}',
        '{"orderId":null}',
        "[]",
        "null",
        "5",
        '"ok"',
        '{"msg":"ok","success":true}',
    ],
)
def test_an_answer_about_something_else_is_no_acceptance(venue: RunningVenue, answer: str) -> None:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer.encode())

    with relay(reply, venue.base_url) as (address, _seen):
        result = ccxt_plugin("binance", address).execute_order(order())
    assert (result.outcome, result.broker_order_id) == (UNKNOWN, "")
