"""What ProjectX's answers come to, and what leaves for it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from brokers import projectx_answers as answers
from brokers.errors import (
    ConfigurationError,
    CredentialError,
    QueryFailedError,
    QuoteUnavailableError,
    UnknownSymbolError,
)
from brokers.plugins.projectx import ProjectXPlugin
from brokers.projectx_login import KeyLogin
from brokers.types import (
    AccountConfig,
    BalanceReport,
    Environment,
    OrderRef,
    OrderRequest,
    OrderType,
    Outcome,
    PositionReport,
    Side,
    TimeInForce,
    VenueStatus,
)
from brokers.venue_http import ASK_TRIES, Reply
from tests.brokers.contract import limit, order, projectx_plugin, ref
from tests.venues.client import RunningVenue
from tests.venues.credentials import PROJECTX_KEY, PROJECTX_USER
from tests.venues.faults import Action, Endpoint, Fault, When
from tests.venues.projectx.rules import ACCOUNT, ACCOUNT_ID

SPOO = "EPZ26/USD"
D = Decimal
ACCEPTED, REJECTED = Outcome.ACCEPTED, Outcome.REJECTED
NOT_SENT, UNKNOWN = Outcome.NOT_SENT, Outcome.UNKNOWN
LOG_IN = "/api/Auth/loginKey"


def contracts(count: int = 2, **changes: object) -> OrderRequest:
    """Fifty units each."""
    return order(**{"symbol": SPOO, "quantity": D(50 * count)} | changes)


def resting(price: str = "5000", **changes: object) -> OrderRequest:
    return limit(price, **{"symbol": SPOO, "quantity": D(100)} | changes)


def sent(venue: RunningVenue) -> list[dict[str, str]]:
    return [one.params for one in venue.control.requests() if one.endpoint == "order"]


def answered(venue: RunningVenue) -> list[dict[str, str]]:
    """As ``sent``, once the venue has let go of the request it holds."""
    deadline = time.monotonic() + 10
    while not sent(venue) and time.monotonic() < deadline:
        time.sleep(0.05)
    return sent(venue)


def asked(venue: RunningVenue, path: str) -> int:
    return sum(one.path == path for one in venue.control.requests())


@pytest.mark.parametrize(
    ("fault", "outcome", "code", "placed"),
    [
        (
            Fault(Action.CODE, When.BEFORE, code="3 Insufficient funds"),
            REJECTED,
            "VENUE_REJECTED",
            0,
        ),
        (Fault(Action.CODE, When.BEFORE, code="2 Rejected"), REJECTED, "VENUE_REJECTED", 0),
        (Fault(Action.CODE, When.BEFORE, code="5 Closed"), REJECTED, "VENUE_REJECTED", 0),
        (Fault(Action.CODE, code="2 customTag must be unique"), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.CODE, code="2 duplicate order"), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.CODE, code="6 Order pending"), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.CODE, code="7 Unknown error"), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.CODE, code="99 Something new"), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.STATUS, status=429), UNKNOWN, "RATE_LIMITED", 1),
        (Fault(Action.STATUS, status=502), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.DROP), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.HANG, seconds=3), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.TRUNCATE), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.CUT_JSON), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.EMPTY), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.HTML), UNKNOWN, "VENUE_UNREACHABLE", 1),
    ],
    ids=lambda value: (
        f"{value.label}{value.code or value.status}" if isinstance(value, Fault) else str(value)
    ),
)
def test_only_evidence_ends_a_placement(
    venue: RunningVenue, fault: Fault, outcome: Outcome, code: str, placed: int
) -> None:
    plugin, request = projectx_plugin(venue.base_url, submit_timeout=1), contracts()
    venue.control.queue_faults(fault)
    result = plugin.execute_order(request)
    assert (result.outcome, result.code) == (outcome, code)
    assert len(venue.control.ledger("projectx").orders) == placed
    assert len(answered(venue)) == 1
    assert (plugin.fetch_order(ref(request)) is not None) is bool(placed)
    assert PROJECTX_KEY not in repr(result)
    assert "loopback-projectx-token" not in repr(result)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, {"type": "2", "side": "0", "size": "2", "contractId": "CON.F.US.EP.Z26"}),
        ({"side": Side.SELL}, {"side": "1"}),
        ({"type": OrderType.LIMIT, "price": D("5999.75")}, {"type": "1", "limitPrice": "5999.75"}),
        ({"type": OrderType.STOP, "stop_price": D(6100)}, {"type": "4", "stopPrice": "6100"}),
    ],
    ids=str,
)
def test_what_leaves(venue: RunningVenue, changes: dict[str, Any], wanted: dict[str, str]) -> None:
    request = contracts(**changes)
    assert projectx_plugin(venue.base_url).execute_order(request).outcome is ACCEPTED
    (left,) = sent(venue)
    assert left | wanted == left
    assert (left["accountId"], left["customTag"]) == (str(ACCOUNT_ID), request.identity)


@pytest.mark.parametrize(
    "changes",
    [
        {"quantity": D(25)},
        {"quantity": D(75)},
        {"time_in_force": TimeInForce.DAY},
        {"reduce_only": True},
        {"type": OrderType.STOP_LIMIT, "price": D(1), "stop_price": D(1)},
        {"type": OrderType.LIMIT, "price": D("5000.1")},
    ],
    ids=str,
)
def test_what_does_not_fit_never_leaves(venue: RunningVenue, changes: dict[str, Any]) -> None:
    result = projectx_plugin(venue.base_url).execute_order(contracts(**changes))
    assert (result.outcome, result.code, sent(venue)) == (NOT_SENT, "NOT_SUPPORTED", [])


def test_positions_count_units(venue: RunningVenue) -> None:
    plugin = projectx_plugin(venue.base_url)
    plugin.execute_order(contracts(3))
    assert plugin.positions() == [PositionReport(SPOO, D(150), D("6000.25"))]
    plugin.execute_order(contracts(5, side=Side.SELL))
    assert plugin.positions() == [PositionReport(SPOO, D(-100), D("5999.75"))]
    assert plugin.balances() == [BalanceReport("USD", D("50000.12"), D("50000.12"))]


def test_rules_of_a_contract(venue: RunningVenue) -> None:
    found = projectx_plugin(venue.base_url).instrument(SPOO)
    assert (found.venue_symbol, found.market_type) == ("CON.F.US.EP.Z26", "future")
    assert (found.quantity_step, found.price_tick, found.min_quantity) == (D(50), D("0.25"), D(50))


@pytest.mark.parametrize("symbol", ["EPZ26", "EPZ26/EUR", "EP/USD", "../USD", "/USD"])
def test_what_is_not_listed_is_unknown(venue: RunningVenue, symbol: str) -> None:
    with pytest.raises(UnknownSymbolError):
        projectx_plugin(venue.base_url).instrument(symbol)


def test_a_price_is_the_last_bars_with_a_tick_each_way(venue: RunningVenue) -> None:
    plugin = projectx_plugin(venue.base_url)
    quote = plugin.fetch_data(SPOO)
    assert (quote.bid, quote.last, quote.ask) == (D("5999.75"), D(6000), D("6000.25"))
    assert datetime.now(UTC) - quote.at < timedelta(seconds=5)
    assert [one.close for one in plugin.candles(SPOO, 3)] == [D(6000)] * 3


def test_resting_orders_are_asked_about_together(venue: RunningVenue) -> None:
    plugin = projectx_plugin(venue.base_url)
    requests = [resting(str(price)) for price in range(5000, 5005)]
    ids = [plugin.execute_order(one).broker_order_id for one in requests]
    earlier, before = datetime.now(UTC) - timedelta(minutes=5), len(venue.control.requests())
    for request, order_id in zip(requests, ids, strict=True):
        found = plugin.fetch_order(OrderRef(request.identity, SPOO, order_id, earlier))
        assert found is not None
        assert found.status is VenueStatus.OPEN
    assert len(venue.control.requests()) == before + 1


def test_a_trade_counts_in_units_and_pays_its_fees() -> None:
    found = answers.Contract("c", "EPZ26", D("0.25"), D(50))
    row = {
        "id": "1", "size": "2", "price": "6000.250000000", "fees": "2.8000",
        "creationTimestamp": "2026-06-03T14:00:00.1234567+00:00",
    }  # fmt: skip
    fill = answers.fill(row, found)
    assert (fill.quantity, fill.price, fill.fee) == (D(100), D("6000.25"), D("2.8"))


def test_voided_trades_did_not_happen(venue: RunningVenue, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = projectx_plugin(venue.base_url)
    plugin.execute_order(contracts())
    plugin.execute_order(contracts(1))
    since = datetime.now(UTC) - timedelta(minutes=1)
    ask = plugin._ask

    def voiding(path: str, body: dict[str, Any]) -> Any:
        answer = dict(ask(path, body))
        if path == "Trade/search":
            first, *rest = answer["trades"]
            answer["trades"] = [{**first, "voided": True}, *rest]
        return answer

    monkeypatch.setattr(plugin, "_ask", voiding)
    assert [one.quantity for one in plugin.trades_since(SPOO, since)] == [D(100)]


@pytest.mark.parametrize(
    ("said", "status", "filled"),
    [
        ({"status": "1"}, VenueStatus.OPEN, 0),
        ({"status": "1", "fillVolume": None}, VenueStatus.OPEN, 0),
        ({"status": "7"}, VenueStatus.OPEN, 0),
        ({"status": "8", "fillVolume": "1"}, VenueStatus.PARTIALLY_FILLED, 50),
        ({"status": "2"}, VenueStatus.FILLED, 100),
        ({"status": "5"}, VenueStatus.REJECTED, 0),
    ],
    ids=str,
)
def test_an_order_that_does_not_tell_how_much_has_filled(
    said: dict[str, str], status: VenueStatus, filled: int
) -> None:
    """As in the vendor's own sample of Order/searchOpen."""
    found = answers.Contract("c", "EPZ26", D("0.25"), D(50))
    report = answers.order({"id": "1", "side": "0", "size": "2", **said}, found)
    assert (report.status, report.filled_quantity) == (status, D(filled))


def test_what_a_working_order_has_filled_is_read_off_its_trades(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the list of working orders leaves it out, as the vendor's own sample does."""
    plugin, request = projectx_plugin(venue.base_url), resting()
    order_id = plugin.execute_order(request).broker_order_id
    ask = plugin._ask
    trade = {
        "id": 7, "orderId": int(order_id), "size": 1, "price": 4000, "fees": 1, "side": 0,
        "creationTimestamp": datetime.now(UTC).isoformat(), "contractId": "CON.F.US.EP.Z26",
    }  # fmt: skip

    def telling(path: str, body: dict[str, Any]) -> Any:
        answer = dict(ask(path, body))
        if path == "Order/searchOpen":
            rows = [{**one, "size": 2} for one in answer["orders"]]
            answer["orders"] = [
                {name: value for name, value in one.items() if name != "fillVolume"} for one in rows
            ]
        if path == "Trade/search":
            answer["trades"] = [trade, {**trade, "id": 8, "orderId": 1}]
        return answer

    monkeypatch.setattr(plugin, "_ask", telling)
    found = plugin.fetch_order(ref(request, order_id))
    assert found is not None
    assert (found.status, found.filled_quantity) == (VenueStatus.PARTIALLY_FILLED, D(50))
    assert [(one.trade_id, one.quantity) for one in found.fills] == [("7", D(50))]
    assert [one.filled_quantity for one in plugin.open_orders()] == [D(50)]


@pytest.mark.parametrize("status", ["3", "4"])
def test_an_ended_order_must_tell_how_much_has_filled(status: str) -> None:
    found = answers.Contract("c", "EPZ26", D("0.25"), D(50))
    with pytest.raises(QueryFailedError):
        answers.order({"id": "1", "side": "0", "size": "2", "status": status}, found)


def test_a_known_order_is_found_also_where_it_does_not_tell_its_tag(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin, request = projectx_plugin(venue.base_url), resting()
    order_id = plugin.execute_order(request).broker_order_id
    ask, tags = plugin._ask, {"customTag": None}

    def telling(path: str, body: dict[str, Any]) -> Any:
        answer = dict(ask(path, body))
        if path == "Order/searchOpen":
            answer["orders"] = [{**one, **tags} for one in answer["orders"]]
        return answer

    monkeypatch.setattr(plugin, "_ask", telling)
    found = plugin.fetch_order(ref(request, order_id))
    assert found is not None
    assert (found.broker_order_id, found.status) == (order_id, VenueStatus.OPEN)
    tags["customTag"] = "another"
    with pytest.raises(QueryFailedError, match="another order"):
        plugin.fetch_order(ref(request, order_id))


@pytest.mark.parametrize("status", ["0", "9"])
def test_a_status_that_says_nothing_is_no_answer(status: str) -> None:
    found = answers.Contract("c", "EPZ26", D("0.25"), D(50))
    row = {"id": "1", "status": status, "side": "0", "size": "1", "fillVolume": "0"}
    with pytest.raises(QueryFailedError):
        answers.order(row, found)


# --- the log-in -----------------------------------------------------------------------------------


def test_one_log_in_serves_many_questions(venue: RunningVenue) -> None:
    plugin = projectx_plugin(venue.base_url)
    for _ in range(3):
        plugin.balances()
    assert asked(venue, LOG_IN) == 1


def test_a_refused_key_is_tried_once_a_minute(venue: RunningVenue) -> None:
    plugin = projectx_plugin(venue.base_url, key="canary-wrong-key")
    for _ in range(3):
        with pytest.raises(CredentialError) as caught:
            plugin.balances()
        assert "canary" not in str(caught.value)
    result = plugin.execute_order(contracts())
    assert (result.outcome, result.code) == (NOT_SENT, "CREDENTIALS_REFUSED")
    assert asked(venue, LOG_IN) == 1


@pytest.mark.parametrize("code", [*range(1, 8), 9, 10])
def test_a_log_in_is_refused_by_what_speaks_of_the_key(venue: RunningVenue, code: int) -> None:
    venue.control.queue_faults(
        Fault(Action.CODE, When.BEFORE, Endpoint.PUBLIC, code=f"{code} no", count=2)
    )
    plugin = projectx_plugin(venue.base_url)
    for _ in range(2):
        result = plugin.execute_order(contracts())
        waits = (result.outcome, result.code, result.retry_after)
        assert waits == (NOT_SENT, "CREDENTIALS_REFUSED", None)
    assert asked(venue, LOG_IN) == 1


@pytest.mark.parametrize("code", [0, 8, 11, 99])
def test_any_other_word_about_the_log_in_lets_the_order_wait(
    venue: RunningVenue, code: int
) -> None:
    """8 is ProjectX's "unknown error": it says nothing of the key."""
    fault = Fault(Action.CODE, When.BEFORE, Endpoint.PUBLIC, code=f"{code} sorry", count=ASK_TRIES)
    venue.control.queue_faults(fault)
    plugin, request = projectx_plugin(venue.base_url), contracts()
    result = plugin.execute_order(request)
    assert (result.outcome, result.code, result.retry_after) == (NOT_SENT, "VENUE_UNREACHABLE", 1)
    assert plugin.execute_order(request).outcome is ACCEPTED


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, {"success": False, "errorCode": 3}),
        (503, {"success": False, "errorCode": 3}),
        (429, {"success": False, "errorCode": 3}),
        (200, {"success": False}),
        (200, {"success": False, "errorCode": [3]}),
        (200, [3]),
        (200, "no"),
    ],
)
def test_what_says_nothing_of_the_key_refuses_none(
    monkeypatch: pytest.MonkeyPatch, status: int, body: object
) -> None:
    answer = httpx.Response(status, json=body)
    monkeypatch.setattr(httpx.Client, "post", lambda *_, **__: answer)
    login = KeyLogin("http://127.0.0.1:1/api/Auth/loginKey", "user", "key")
    with pytest.raises(QueryFailedError, match=f"HTTP {status}"):
        login.token()


def grown_stale(plugin: ProjectXPlugin) -> KeyLogin:
    """ProjectX no longer takes the token this process keeps."""
    tokens = plugin._http._tokens
    assert isinstance(tokens, KeyLogin)
    tokens._known = ("stale-token-canary", time.monotonic() + 3600)
    return tokens


def test_an_order_with_a_stale_token_leaves_with_the_next(venue: RunningVenue) -> None:
    plugin, request = projectx_plugin(venue.base_url), contracts()
    assert plugin.execute_order(contracts()).outcome is ACCEPTED
    grown_stale(plugin)
    result = plugin.execute_order(request)
    waits = (NOT_SENT, "CREDENTIALS_REFUSED", 1)
    assert (result.outcome, result.code, result.retry_after) == waits
    assert (len(sent(venue)), len(venue.control.ledger("projectx").orders)) == (2, 1)
    assert plugin.execute_order(request).outcome is ACCEPTED
    assert len(venue.control.ledger("projectx").orders) == 2


@pytest.mark.parametrize("body", ["", '{"errorMessage": "expired"}', "<html>"])
def test_an_unauthorised_placement_was_not_applied_whatever_it_says(body: str) -> None:
    verdict = answers.judged(Reply(True, 401, body))
    assert (verdict.outcome, verdict.retry_after) == (NOT_SENT, 1)


def test_a_venue_that_takes_none_of_its_own_tokens_is_left_alone_for_a_minute(
    venue: RunningVenue,
) -> None:
    """Each refusal brings one log-in, and the second within a minute none: the order waits."""
    plugin, request = projectx_plugin(venue.base_url), contracts()
    plugin.balances()
    plugin.instrument(request.symbol)
    for _ in range(2):
        tokens = grown_stale(plugin)
        assert plugin.execute_order(request).retry_after == 1
    before = len(venue.control.requests())
    for _ in range(3):
        result = plugin.execute_order(request)
        assert (result.outcome, result.retry_after) == (NOT_SENT, 1)
    assert len(venue.control.requests()) == before
    tokens._refusals._rests_until = 0.0
    assert plugin.execute_order(request).outcome is ACCEPTED


def test_a_lost_answer_to_the_log_in_lets_the_order_wait(venue: RunningVenue) -> None:
    venue.control.queue_faults(Fault(Action.DROP, When.BEFORE, Endpoint.PUBLIC, count=ASK_TRIES))
    plugin = projectx_plugin(venue.base_url)
    result = plugin.execute_order(contracts())
    assert (result.outcome, result.retry_after) == (NOT_SENT, 1)
    assert plugin.execute_order(contracts()).outcome is ACCEPTED


def test_questions_are_repeated_and_placements_never(venue: RunningVenue) -> None:
    plugin = projectx_plugin(venue.base_url)
    plugin.instrument(SPOO)
    plugin.balances()
    venue.control.queue_faults(Fault(Action.STATUS, When.BEFORE, Endpoint.QUERY, status=503))
    assert plugin.balances()
    venue.control.queue_faults(Fault(Action.STATUS, When.BEFORE, status=503))
    assert plugin.execute_order(contracts()).outcome is UNKNOWN
    assert len(sent(venue)) == 1


# --- accounts -------------------------------------------------------------------------------------


def test_a_sandbox_account_never_trades_real_money(venue: RunningVenue) -> None:
    venue.control.set_permissions("projectx", {"simulated": False})
    result = projectx_plugin(venue.base_url).execute_order(contracts())
    assert (result.outcome, result.code) == (NOT_SENT, "ACCOUNT_MISCONFIGURED")
    live = projectx_plugin(venue.base_url, Environment.LIVE)
    assert live.execute_order(contracts()).outcome is ACCEPTED


def test_an_account_that_does_not_tell_whether_it_is_simulated(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = projectx_plugin(venue.base_url, Environment.LIVE)
    untold = [
        {key: told for key, told in one.items() if key != "simulated"} for one in plugin._accounts()
    ]
    for one in (plugin, sandbox := projectx_plugin(venue.base_url)):
        monkeypatch.setattr(one, "_accounts", lambda: untold)
    assert plugin.check_permissions().detail == f"account {ACCOUNT}, not said to be simulated"
    with pytest.raises(ConfigurationError, match=r"does not say that .* is simulated"):
        sandbox.balances()


def test_an_account_the_key_does_not_reach(venue: RunningVenue) -> None:
    plugin = projectx_plugin(venue.base_url, account="OTHER")
    assert plugin.execute_order(contracts()).code == "ACCOUNT_MISCONFIGURED"
    assert not plugin.health_check().ok


def test_a_dry_run_account_only_reads(venue: RunningVenue) -> None:
    plugin = projectx_plugin(venue.base_url, Environment.DRY_RUN)
    assert plugin.balances()
    assert plugin.execute_order(contracts()).code == "NOT_SUPPORTED"


def test_a_dry_run_cancels_nothing(venue: RunningVenue) -> None:
    real, request = projectx_plugin(venue.base_url), resting()
    placed = real.execute_order(request)
    rehearsing = projectx_plugin(venue.base_url, Environment.DRY_RUN)
    canceled = rehearsing.cancel_order(ref(request, placed.broker_order_id))
    assert (canceled.outcome, canceled.code) == (NOT_SENT, "NOT_SUPPORTED")
    assert [one.broker_order_id for one in real.open_orders()] == [placed.broker_order_id]


def test_permissions(venue: RunningVenue) -> None:
    venue.control.set_permissions("projectx", {"canTrade": False})
    found = projectx_plugin(venue.base_url).check_permissions()
    assert (found.trade, found.detail) == (False, f"account {ACCOUNT}, simulated")


@pytest.mark.parametrize(
    ("options", "keys", "error"),
    [
        ({"account": ""}, {}, ConfigurationError),
        ({"base_url": "http://api.topstepx.com"}, {}, ConfigurationError),
        ({}, {"api_key": ""}, CredentialError),
        ({}, {"user_name": ""}, CredentialError),
    ],
)
def test_what_cannot_work_is_refused(
    options: dict[str, str], keys: dict[str, str], error: type[Exception]
) -> None:
    names = {"api_key": PROJECTX_KEY, "user_name": PROJECTX_USER} | keys
    config = AccountConfig(
        "1", "projectx", Environment.SANDBOX, {"account": ACCOUNT} | options, names
    )
    with pytest.raises(error):
        ProjectXPlugin().init(config)


def test_a_contract_that_does_not_trade_has_no_price(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = projectx_plugin(venue.base_url)
    monkeypatch.setattr(plugin, "_bars", lambda *_: [])
    with pytest.raises(QuoteUnavailableError):
        plugin.fetch_data(SPOO)
