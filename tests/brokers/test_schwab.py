"""What Schwab's answers come to, what leaves for it, and how an order without our id is recognised."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from brokers import schwab_answers, schwab_lists
from brokers.errors import (
    AmbiguousOrderError,
    ConfigurationError,
    CredentialError,
    LoginNeededError,
    NotShownError,
    QueryFailedError,
    QuoteUnavailableError,
    UnknownSymbolError,
)
from brokers.plugins.schwab import SchwabPlugin
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
from brokers.venue_http import RefusedError, Reply
from tests.brokers.contract import GivenToken, limit, order, ref, schwab_plugin
from tests.venues.client import RunningVenue
from tests.venues.credentials import SCHWAB_KEY, SCHWAB_SECRET, SCHWAB_TOKEN
from tests.venues.faults import Action, Endpoint, Fault, When
from tests.venues.schwab.rules import ACCOUNT

APPLE = "AAPL/USD"
D = Decimal
ACCEPTED, REJECTED = Outcome.ACCEPTED, Outcome.REJECTED
NOT_SENT, UNKNOWN = Outcome.NOT_SENT, Outcome.UNKNOWN


def shares(**changes: object) -> OrderRequest:
    return order(**{"symbol": APPLE, "quantity": D(10)} | changes)


def resting(price: str = "200", **changes: object) -> OrderRequest:
    return limit(price, **{"symbol": APPLE, "quantity": D(10)} | changes)


def sent(venue: RunningVenue) -> list[dict[str, str]]:
    return [one.params for one in venue.control.requests() if one.endpoint == "order"]


def answered(venue: RunningVenue) -> list[dict[str, str]]:
    """As ``sent``, once the venue has let go of the request it holds."""
    deadline = time.monotonic() + 10
    while not sent(venue) and time.monotonic() < deadline:
        time.sleep(0.05)
    return sent(venue)


class NoToken(GivenToken):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def token(self) -> str:
        raise self.error


# --- placing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "outcome", "code", "placed"),
    [
        (Fault(Action.CODE, When.BEFORE, code="Quantity"), REJECTED, "VENUE_REJECTED", 0),
        (Fault(Action.STATUS, status=429), UNKNOWN, "RATE_LIMITED", 1),
        (Fault(Action.STATUS, status=400), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.STATUS, status=502), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.STATUS, status=504), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.DROP), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.DROP, When.BEFORE), UNKNOWN, "VENUE_UNREACHABLE", 0),
        (Fault(Action.HANG, seconds=3), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.HTML), UNKNOWN, "VENUE_UNREACHABLE", 1),
    ],
    ids=lambda value: (
        f"{value.label}{value.code or value.status}" if isinstance(value, Fault) else str(value)
    ),
)
def test_only_evidence_ends_a_placement(
    venue: RunningVenue, fault: Fault, outcome: Outcome, code: str, placed: int
) -> None:
    plugin, request = schwab_plugin(venue.base_url, submit_timeout=1), shares()
    venue.control.queue_faults(fault)
    result = plugin.execute_order(request)
    assert (result.outcome, result.code) == (outcome, code)
    assert len(venue.control.ledger("schwab").orders) == placed
    assert len(answered(venue)) == 1
    assert (plugin.fetch_order(ref(request)) is not None) is bool(placed)
    assert SCHWAB_TOKEN not in repr(result)


def test_an_order_whose_address_is_missing_is_looked_for(venue: RunningVenue) -> None:
    plugin, request = schwab_plugin(venue.base_url), shares()
    venue.control.set_permissions("schwab", {"location": False})
    result = plugin.execute_order(request)
    assert (result.outcome, result.broker_order_id) == (UNKNOWN, "")
    found = plugin.fetch_order(ref(request))
    assert found is not None
    assert (found.status, found.broker_order_id) == (VenueStatus.FILLED, "1000000001")


def test_what_cannot_be_paid_is_taken_in_and_rejected_in_schwabs_words(
    venue: RunningVenue,
) -> None:
    plugin, request = schwab_plugin(venue.base_url), resting("249", quantity=D(500))
    for _ in range(8):
        assert plugin.execute_order(resting("249", quantity=D(499))).outcome is ACCEPTED
    result = plugin.execute_order(request)
    assert result.outcome is ACCEPTED
    found = plugin.fetch_order(ref(request, result.broker_order_id))
    assert found is not None
    assert (found.status, found.filled_quantity) == (VenueStatus.REJECTED, D(0))
    assert found.reason == "You do not have enough available cash for this order."


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, {"orderType": "MARKET", "duration": "DAY", "session": "NORMAL"}),
        ({"time_in_force": TimeInForce.DAY}, {"orderType": "MARKET", "duration": "DAY"}),
        (
            {"type": OrderType.LIMIT, "price": D("249.50")},
            {"orderType": "LIMIT", "duration": "GOOD_TILL_CANCEL", "price": "249.5"},
        ),
        (
            {"type": OrderType.LIMIT, "price": D(249), "time_in_force": TimeInForce.DAY},
            {"duration": "DAY", "price": "249"},
        ),
        (
            {"type": OrderType.STOP, "stop_price": D(260)},
            {"orderType": "STOP", "stopPrice": "260", "duration": "GOOD_TILL_CANCEL"},
        ),
        (
            {"type": OrderType.STOP_LIMIT, "stop_price": D(260), "price": D(261)},
            {"orderType": "STOP_LIMIT", "stopPrice": "260", "price": "261"},
        ),
        (
            {"type": OrderType.TRAILING_STOP, "trailing_percent": D(5)},
            {
                "orderType": "TRAILING_STOP",
                "stopPriceLinkBasis": "LAST",
                "stopPriceLinkType": "PERCENT",
                "stopPriceOffset": "5",
            },
        ),
    ],
    ids=str,
)
def test_what_leaves(venue: RunningVenue, changes: dict[str, Any], wanted: dict[str, str]) -> None:
    plugin, request = schwab_plugin(venue.base_url), shares(**changes)
    assert plugin.execute_order(request).outcome is ACCEPTED
    (left,) = sent(venue)
    assert left | wanted == left
    assert "'instruction': 'BUY', 'quantity': 10" in left["orderLegCollection"]
    report = plugin.fetch_order(ref(request))
    assert report is not None, "it is recognised by what it asks for"


@pytest.mark.parametrize("percent", ["2.5", "0", "100"])
def test_a_trailing_stop_follows_by_whole_percents(venue: RunningVenue, percent: str) -> None:
    plugin = schwab_plugin(venue.base_url)
    request = shares(type=OrderType.TRAILING_STOP, trailing_percent=D(percent))
    result = plugin.execute_order(request)
    assert (result.outcome, result.code, sent(venue)) == (NOT_SENT, "NOT_SUPPORTED", [])


@pytest.mark.parametrize("term", [TimeInForce.IOC, TimeInForce.FOK])
def test_other_terms_are_refused(venue: RunningVenue, term: TimeInForce) -> None:
    result = schwab_plugin(venue.base_url).execute_order(resting(time_in_force=term))
    assert (result.outcome, result.code) == (NOT_SENT, "NOT_SUPPORTED")


def test_nothing_leaves_after_its_claim_has_ended(venue: RunningVenue) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    result = schwab_plugin(venue.base_url).execute_order(shares(send_before=past))
    assert (result.outcome, result.retry_after, sent(venue)) == (NOT_SENT, 1, [])


def test_a_dry_run_account_only_reads(venue: RunningVenue) -> None:
    plugin = schwab_plugin(venue.base_url, Environment.DRY_RUN)
    assert plugin.balances() == [BalanceReport("USD", D(1_000_000), D(1_000_000))]
    result = plugin.execute_order(shares())
    assert (result.outcome, result.code, sent(venue)) == (NOT_SENT, "NOT_SUPPORTED", [])


def test_a_dry_run_cancels_nothing(venue: RunningVenue) -> None:
    real, request = schwab_plugin(venue.base_url), resting()
    placed = real.execute_order(request)
    rehearsing = schwab_plugin(venue.base_url, Environment.DRY_RUN)
    canceled = rehearsing.cancel_order(ref(request, placed.broker_order_id))
    assert (canceled.outcome, canceled.code) == (NOT_SENT, "NOT_SUPPORTED")
    assert [one.broker_order_id for one in real.open_orders()] == [placed.broker_order_id]


def test_a_closed_market_takes_no_market_order_unless_it_may_queue(venue: RunningVenue) -> None:
    venue.control.set_market_hours("schwab", is_open=False)
    refused = schwab_plugin(venue.base_url).execute_order(shares())
    assert (refused.outcome, refused.code, sent(venue)) == (NOT_SENT, "TRADING_HOURS", [])
    assert schwab_plugin(venue.base_url).execute_order(resting()).outcome is ACCEPTED
    plugin, request = schwab_plugin(venue.base_url, outside_hours="queue"), shares()
    assert plugin.execute_order(request).outcome is ACCEPTED
    waiting = plugin.fetch_order(ref(request))
    assert waiting is not None
    assert waiting.status is VenueStatus.OPEN


def test_where_the_hours_are_refused_schwab_judges_the_order(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin, waits = schwab_plugin(venue.base_url), schwab_plugin(venue.base_url)
    for one, status in ((plugin, 404), (waits, 401)):
        refusing(monkeypatch, one, "/markets", status)
    assert plugin.execute_order(shares()).outcome is ACCEPTED
    assert timedelta(0) < plugin._hours.until - datetime.now(UTC) <= timedelta(minutes=1)
    result = waits.execute_order(shares())
    assert (result.outcome, result.code, result.retry_after) == (NOT_SENT, "CREDENTIALS_REFUSED", 1)
    assert len(sent(venue)) == 1


def refusing(monkeypatch: pytest.MonkeyPatch, plugin: SchwabPlugin, path: str, status: int) -> None:
    """Schwab refuses one question."""
    ask = plugin._http.ask

    def answer(url: str, params: Any = None) -> Any:
        if url.endswith(path):
            raise RefusedError("Schwab", Reply(True, status, '{"message": "no"}'), "no")
        return ask(url, params)

    monkeypatch.setattr(plugin._http, "ask", answer)


# --- recognising ----------------------------------------------------------------------------------


def test_of_two_orders_alike_nobody_can_say_which_it_is(venue: RunningVenue) -> None:
    plugin, request = schwab_plugin(venue.base_url), resting()
    ids = [plugin.execute_order(one).broker_order_id for one in (request, resting())]
    with pytest.raises(AmbiguousOrderError) as caught:
        plugin.fetch_order(ref(request))
    assert all(order_id in str(caught.value) for order_id in ids)
    canceled = plugin.cancel_order(ref(request))
    assert canceled.outcome is NOT_SENT, "nothing is canceled on a guess"
    other = replace(ref(request), taken=frozenset(ids[1:]))
    found = plugin.fetch_order(other)
    assert found is not None
    assert found.broker_order_id == ids[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"quantity": D(11)},
        {"side": Side.SELL},
        {"symbol": "BRK.A/USD"},
        {"price": D(201)},
        {"time_in_force": TimeInForce.DAY},
        {"type": OrderType.MARKET, "price": None},
        {"type": OrderType.STOP, "price": None, "stop_price": D(200)},
    ],
    ids=str,
)
def test_another_order_is_not_taken_for_it(venue: RunningVenue, changes: dict[str, Any]) -> None:
    plugin, request = schwab_plugin(venue.base_url), resting()
    assert plugin.execute_order(request).outcome is ACCEPTED
    assert plugin.fetch_order(ref(replace(request, **changes))) is None


@pytest.mark.parametrize(("minutes", "is_found"), [(0, True), (-5, False), (5, False)])
def test_only_what_was_entered_while_it_was_placed_counts(
    venue: RunningVenue, minutes: int, is_found: bool
) -> None:
    plugin, request = schwab_plugin(venue.base_url), resting()
    plugin.execute_order(request)
    submitted = datetime.now(UTC) + timedelta(minutes=minutes)
    found = plugin.fetch_order(OrderRef(request.identity, APPLE, "", submitted, request))
    assert (found is not None) is is_found


def test_an_id_that_names_an_order_of_another_kind_is_not_believed(venue: RunningVenue) -> None:
    plugin, request = schwab_plugin(venue.base_url), resting()
    placed = plugin.execute_order(request)
    with pytest.raises(AmbiguousOrderError):
        plugin.fetch_order(ref(resting("201"), placed.broker_order_id))
    assert plugin.fetch_order(ref(request, "1999999999")) is None


def test_what_it_asked_for_must_be_known(venue: RunningVenue) -> None:
    plugin, request = schwab_plugin(venue.base_url), resting()
    with pytest.raises(QueryFailedError):
        plugin.fetch_order(OrderRef(request.identity, APPLE, "", None))


def test_resting_orders_are_asked_about_together(venue: RunningVenue) -> None:
    plugin = schwab_plugin(venue.base_url)
    requests = [resting(str(price)) for price in range(200, 205)]
    ids = [plugin.execute_order(one).broker_order_id for one in requests]
    earlier = datetime.now(UTC) - timedelta(minutes=5)
    before = len(venue.control.requests())
    for request, order_id in zip(requests, ids, strict=True):
        named = OrderRef(request.identity, APPLE, order_id, earlier, request)
        found = plugin.fetch_order(named)
        assert found is not None
        assert found.status is VenueStatus.OPEN
    assert len(venue.control.requests()) == before + 1


def asked_since(venue: RunningVenue) -> list[str]:
    """Whence the lists of orders reached that were asked for."""
    lists = [one for one in venue.control.requests() if one.path.endswith("/orders")]
    return [one.params["fromEnteredTime"] for one in lists if "fromEnteredTime" in one.params]


def test_a_list_reaches_back_to_the_oldest_resting_order_and_no_further(
    venue: RunningVenue,
) -> None:
    plugin = schwab_plugin(venue.base_url)
    old, young = resting("200"), resting("201")
    ids = {one.identity: plugin.execute_order(one).broker_order_id for one in (old, young)}

    def ask(request: OrderRequest, minutes: int) -> None:
        submitted = datetime.now(UTC) - timedelta(minutes=minutes)
        known = OrderRef(request.identity, APPLE, ids[request.identity], submitted, request)
        assert plugin.fetch_order(known) is not None

    ask(young, 2)
    ask(old, 60)
    assert len(asked_since(venue)) == 2, "the first list did not reach back far enough"
    plugin._lists.forget()
    ask(young, 2)
    ask(old, 60)
    first, second, third = asked_since(venue)
    assert first > second
    assert second[:15] == third[:15]


def test_more_orders_than_a_list_holds_are_listed_in_parts(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some seventy a day for 59 days are more than Schwab shows at once."""
    monkeypatch.setattr(schwab_lists, "MOST_ORDERS", 3)
    plugin, placed = schwab_plugin(venue.base_url), []
    for days in (50, 49, 30, 20, 10, 1, 0):
        venue.control.set_clock_offset(-days * 86_400_000)
        placed.append(plugin.execute_order(resting(str(190 + days))).broker_order_id)
    venue.control.set_clock_offset(0)
    assert sorted(one.broker_order_id for one in plugin.open_orders()) == placed
    venue.control.fill("schwab", placed[0], D(10))
    since = plugin.trades_since(APPLE, datetime.now(UTC) - timedelta(minutes=1))
    assert [(fill.quantity, fill.price) for fill in since] == [(D(10), D(240))]


def test_an_order_of_the_second_in_which_a_list_ends_is_listed_once(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = schwab_plugin(venue.base_url)
    venue.control.set_clock_offset(-60_000)
    first = plugin.execute_order(resting("200")).broker_order_id
    venue.control.set_clock_offset(0)
    second = plugin.execute_order(resting("201")).broker_order_id
    entered = [schwab_answers.entered(one) for one in plugin._lists.all()]
    monkeypatch.setattr(schwab_lists, "MOST_ORDERS", 2)
    middle = max(entered) + timedelta(seconds=0.5)
    found = plugin._lists.since(middle - timedelta(minutes=5), middle + timedelta(minutes=5))
    assert [str(one["orderId"]) for one in found] == [first, second]


def test_a_resting_order_no_list_shows_is_asked_for_by_its_id(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin, request = schwab_plugin(venue.base_url), resting()
    placed = plugin.execute_order(request)
    monkeypatch.setattr(schwab_lists, "MOST_ORDERS", 1)
    with pytest.raises(NotShownError):
        plugin.open_orders()
    earlier = datetime.now(UTC) - timedelta(minutes=5)
    known = OrderRef(request.identity, APPLE, placed.broker_order_id, earlier, request)
    found = plugin.fetch_order(known)
    assert found is not None
    assert found.status is VenueStatus.OPEN


# --- the log-in -----------------------------------------------------------------------------------


def test_nobody_logged_in(venue: RunningVenue) -> None:
    plugin = schwab_plugin(venue.base_url, tokens=NoToken(LoginNeededError("log in")))
    result = plugin.execute_order(shares())
    assert (result.outcome, result.code, result.retry_after) == (NOT_SENT, "LOGIN_NEEDED", None)
    assert plugin.cancel_order(ref(shares(), "1")).outcome is NOT_SENT
    with pytest.raises(LoginNeededError, match="log in"):
        plugin.balances()
    assert not plugin.health_check().ok
    assert venue.control.requests() == []


def test_a_token_that_cannot_be_renewed_now_lets_the_order_wait(venue: RunningVenue) -> None:
    plugin = schwab_plugin(venue.base_url, tokens=NoToken(QueryFailedError("no answer")))
    result = plugin.execute_order(shares())
    assert (result.outcome, result.retry_after) == (NOT_SENT, 1)


def test_a_token_schwab_does_not_take_is_given_back(venue: RunningVenue) -> None:
    tokens = GivenToken("stale-token-canary")
    plugin = schwab_plugin(venue.base_url, tokens=tokens)
    with pytest.raises(QueryFailedError) as caught:
        plugin.positions()
    assert caught.value.code == "CREDENTIALS_REFUSED"
    assert set(tokens.refusals) == {"stale-token-canary"}
    assert "stale-token-canary" not in str(caught.value)
    with pytest.raises(CredentialError):
        plugin.check_permissions()


class RenewedToken(GivenToken):
    """The venue's standing token, once it has refused a stale one."""

    def token(self) -> str:
        return SCHWAB_TOKEN if self.refusals else self.given


def test_an_order_with_a_stale_token_leaves_with_the_next(venue: RunningVenue) -> None:
    """401 tells that nothing was placed: an exit does not end because a token grew old."""
    tokens, request = RenewedToken(SCHWAB_TOKEN), shares()
    plugin = schwab_plugin(venue.base_url, tokens=tokens)
    assert plugin.execute_order(shares()).outcome is ACCEPTED
    tokens.given = "stale-token-canary"
    result = plugin.execute_order(request)
    waits = (NOT_SENT, "CREDENTIALS_REFUSED", 1)
    assert (result.outcome, result.code, result.retry_after) == waits
    assert (len(sent(venue)), len(venue.control.ledger("schwab").orders)) == (2, 1)
    assert plugin.execute_order(request).outcome is ACCEPTED
    assert len(venue.control.ledger("schwab").orders) == 2


@pytest.mark.parametrize("body", ["", '{"message": "Client not authorized"}', "<html>"])
def test_an_unauthorised_placement_was_not_applied_whatever_it_says(body: str) -> None:
    verdict = schwab_answers.judged(Reply(True, 401, body))
    assert (verdict.outcome, verdict.retry_after) == (NOT_SENT, 1)


def test_a_log_in_to_another_account_is_no_log_in(venue: RunningVenue) -> None:
    plugin = schwab_plugin(venue.base_url, account="87654321")
    result = plugin.execute_order(shares())
    assert (result.outcome, result.code) == (NOT_SENT, "ACCOUNT_MISCONFIGURED")
    assert "…321" in result.detail


# --- reading --------------------------------------------------------------------------------------


def test_money_holdings_and_permissions(venue: RunningVenue) -> None:
    plugin = schwab_plugin(venue.base_url)
    plugin.execute_order(shares())
    assert plugin.positions() == [PositionReport(APPLE, D(10), D("250.01"))]
    assert plugin.balances() == [
        BalanceReport("USD", D("997499.9"), D("997499.9")),
        BalanceReport("AAPL", D(10), D(10)),
    ]
    assert plugin.check_permissions().trade
    venue.control.set_permissions("schwab", {"closing_only": True})
    assert plugin.check_permissions().trade is False


def test_class_shares_are_written_with_a_slash_there(venue: RunningVenue) -> None:
    plugin = schwab_plugin(venue.base_url)
    assert plugin.instrument("BRK.A/USD").venue_symbol == "BRK/A"
    assert plugin.fetch_data("BRK.A/USD").last == 60000


@pytest.mark.parametrize("symbol", ["AAPL/EUR", "AAPL", "", "/USD", "A$/USD", "XYZ/USD"])
def test_what_is_no_share_for_dollars_is_unknown(venue: RunningVenue, symbol: str) -> None:
    with pytest.raises(UnknownSymbolError):
        schwab_plugin(venue.base_url).instrument(symbol)


def test_late_prices_are_none(venue: RunningVenue) -> None:
    venue.control.set_permissions("schwab", {"realtime": False})
    with pytest.raises(QuoteUnavailableError, match="late"):
        schwab_plugin(venue.base_url).fetch_data(APPLE)


def test_candles_are_hours_put_together(venue: RunningVenue) -> None:
    found = schwab_plugin(venue.base_url).candles(APPLE, 3)
    assert [one.at.minute for one in found] == [0, 0, 0]
    assert [(one.high, one.low, one.close) for one in found] == [(D(251), D(249), D(250))] * 3


def half_hour(at: str, high: str, low: str, close: str) -> dict[str, str]:
    milliseconds = round(datetime.fromisoformat(at).timestamp() * 1000)
    return {"datetime": str(milliseconds), "high": high, "low": low, "close": close}


def test_an_hour_is_as_high_and_low_as_both_its_halves() -> None:
    halves = [
        half_hour("2026-06-03T13:30+00:00", "5", "4", "4.5"),
        half_hour("2026-06-03T14:00+00:00", "7", "5", "6"),
        half_hour("2026-06-03T14:30+00:00", "6.5", "3", "4"),
    ]
    first, second = schwab_answers.candles({"candles": halves})
    assert (first.high, first.low, first.close) == (D(5), D(4), D("4.5"))
    assert (second.high, second.low, second.close) == (D(7), D(3), D(4))


@pytest.mark.parametrize("status", ["UNKNOWN", "SOMETHING_NEW"])
def test_a_status_that_says_nothing_is_no_answer(status: str) -> None:
    leg = {
        "instruction": "BUY",
        "instrument": {"symbol": "AAPL", "assetType": "EQUITY"},
    }
    row = {
        "orderId": "1",
        "status": status,
        "quantity": "1",
        "filledQuantity": "0",
        "orderLegCollection": [leg],
    }
    with pytest.raises(QueryFailedError):
        schwab_answers.order(row)


@pytest.mark.parametrize(
    ("sessions", "at", "wanted"),
    [
        ([("13:30", "20:00")], "12:00", (False, "13:30")),
        ([("13:30", "20:00")], "13:30", (True, "20:00")),
        ([("13:30", "20:00")], "20:00", (False, "21:00")),
        ([], "15:00", (False, "16:00")),
    ],
)
def test_hours(sessions: list[tuple[str, str]], at: str, wanted: tuple[bool, str]) -> None:
    def on(clock: str) -> str:
        return f"2026-06-03T{clock}:00+00:00"

    spans = [{"start": on(start), "end": on(end)} for start, end in sessions]
    market = {"isOpen": True, "sessionHours": {"regularMarket": spans}}
    found = schwab_answers.opens({"equity": {"EQ": market}}, datetime.fromisoformat(on(at)))
    assert found == (wanted[0], datetime.fromisoformat(on(wanted[1])))


def test_fills_told_twice_are_booked_once(venue: RunningVenue) -> None:
    plugin, request = schwab_plugin(venue.base_url), resting()
    placed = plugin.execute_order(request)
    for _ in range(2):
        venue.control.fill("schwab", placed.broker_order_id, D(3))
    report = plugin.fetch_order(ref(request))
    assert report is not None
    assert [(fill.trade_id, fill.quantity) for fill in report.fills] == [
        (f"{placed.broker_order_id}-7-0", D(3)),
        (f"{placed.broker_order_id}-4-0", D(3)),
    ]
    assert (report.filled_quantity, report.average_price) == (D(6), D(200))


@pytest.mark.parametrize("filled", [0, 3])
def test_a_cancellation_is_no_trade(venue: RunningVenue, filled: int) -> None:
    """Schwab tells it as an execution of the rest at a price of zero."""
    plugin, request = schwab_plugin(venue.base_url), resting()
    placed = plugin.execute_order(request)
    if filled:
        venue.control.fill("schwab", placed.broker_order_id, D(filled))
    plugin.cancel_order(ref(request, placed.broker_order_id))
    report = plugin.fetch_order(ref(request, placed.broker_order_id))
    assert report is not None
    assert (report.status, report.filled_quantity) == (VenueStatus.CANCELED, D(filled))
    traded = [(D(filled), D(200))] if filled else []
    assert [(fill.quantity, fill.price) for fill in report.fills] == traded
    since = plugin.trades_since(APPLE, datetime.now(UTC) - timedelta(minutes=1))
    assert [(fill.quantity, fill.price) for fill in since] == traded


def test_an_execution_of_no_kind_is_missing_from_what_has_filled() -> None:
    """The order then shows that it has filled more than it told trades of: it is asked about again."""
    execution = {
        "activityType": "EXECUTION",
        "orderRemainingQuantity": "0",
        "executionLegs": [{"quantity": "2", "price": "200", "time": "2026-06-03T14:00:00+0000"}],
    }
    instrument = {"symbol": "AAPL", "assetType": "EQUITY"}
    row = {
        "orderId": "1",
        "status": "FILLED",
        "quantity": "2",
        "filledQuantity": "2",
        "orderLegCollection": [{"instruction": "BUY", "instrument": instrument}],
        "orderActivityCollection": [execution],
    }
    report = schwab_answers.order(row)
    assert (report.filled_quantity, report.fills, report.average_price) == (D(2), (), None)


# --- configuration --------------------------------------------------------------------------------


def configured(**changes: Any) -> SchwabPlugin:
    plugin = SchwabPlugin()
    options = {"account": ACCOUNT} | changes.pop("options", {})
    keys = {"api_key": SCHWAB_KEY, "api_secret": SCHWAB_SECRET} | changes.pop("keys", {})
    environment = changes.pop("environment", Environment.LIVE)
    plugin.init(AccountConfig("1", "schwab", environment, options, keys))
    return plugin


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"options": {"account": ""}}, ConfigurationError),
        ({"options": {"account": "12-34"}}, ConfigurationError),
        ({"environment": Environment.SANDBOX}, ConfigurationError),
        ({"options": {"callback_url": "http://127.0.0.1"}}, ConfigurationError),
        ({"options": {"callback_url": "https://[::1"}}, ConfigurationError),
        ({"options": {"outside_hours": "sometimes"}}, ConfigurationError),
        ({"options": {"base_url": "http://api.schwabapi.com"}}, ConfigurationError),
        ({"keys": {"api_key": ""}}, CredentialError),
        ({"keys": {"api_secret": "with space"}}, CredentialError),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        configured(**changes)


def test_where_a_person_logs_in() -> None:
    terms = SchwabPlugin.login_terms({})
    assert terms.authorise_url == "https://api.schwabapi.com/v1/oauth/authorize"
    assert terms.token_url == "https://api.schwabapi.com/v1/oauth/token"
    assert (terms.callback_url, terms.lasts) == ("https://127.0.0.1", timedelta(days=7))


def test_it_is_marked_experimental() -> None:
    assert "experimental" in SchwabPlugin.label


@pytest.mark.parametrize(
    "ask",
    [
        lambda plugin: plugin.positions(),
        lambda plugin: plugin.open_orders(),
        lambda plugin: plugin.fetch_order(ref(resting(), "1000000001")),
    ],
)
@pytest.mark.parametrize("action", [Action.HTML, Action.EMPTY, Action.CUT_JSON])
def test_a_question_without_a_whole_answer_is_not_answered(
    venue: RunningVenue, ask: Callable[[SchwabPlugin], object], action: Action
) -> None:
    plugin = schwab_plugin(venue.base_url)
    plugin.execute_order(resting())
    venue.control.queue_faults(Fault(action, endpoint=Endpoint.QUERY, count=5))
    with pytest.raises(QueryFailedError):
        ask(plugin)
