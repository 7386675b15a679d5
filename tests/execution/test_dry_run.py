"""What would happen, told without anything happening."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from psycopg import sql

from brokers.models import Account
from brokers.types import Quote
from execution import dry_run as module
from execution import tasks
from execution.dry_run import dry_run, from_a_web_process, replay, replay_from_a_web_process
from execution.models import Order, Signal, Strategy
from execution.states import SignalState
from tests.brokers.scripted import ScriptedPlugin, script_of
from tests.execution.posting import ALERT, body_of, post
from tests.factories import (
    AccountFactory,
    OrderFactory,
    PositionFactory,
    RouteFactory,
    SignalFactory,
    StrategyFactory,
    allow_trading,
    webhook,
)
from tests.threads import beside

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("new_process")]


_DIGEST = "SELECT md5(string_agg(row, chr(10) ORDER BY row)) FROM (SELECT {} AS row FROM {} r) rows"
_TOLD_BY_VENUES = {
    "brokers_account": "(to_jsonb(r) - '{balances,balances_at,equity}'::text[])::text",
    "brokers_instrument": "NULL::text",
    "risk_circuitbreaker": "NULL::text",
}


def fingerprints() -> dict[str, str]:
    """Of every table, but for what venues say: equal means that nothing else was written."""
    with connection.cursor() as cursor:
        names = sorted(connection.introspection.table_names(cursor))
        digests: dict[str, str] = {}
        for name in names:
            columns = sql.SQL(_TOLD_BY_VENUES.get(name, "r::text"))
            cursor.execute(sql.SQL(_DIGEST).format(columns, sql.Identifier(name)))
            digests[name] = cursor.fetchone()[0]
    return digests


@pytest.fixture
def unwritten() -> Any:
    """Call it at the end: whether the database is as it was when it was called first."""
    marks: list[dict[str, str]] = []

    def check() -> None:
        marks.append(fingerprints())
        assert marks[-1] == marks[0]

    return check


def test_an_alert_that_would_trade(unwritten: Callable[[], None]) -> None:
    strategy, secret = webhook()
    unwritten()

    result = dry_run(strategy, body_of(secret=secret, price="60000", plot="7"))

    unwritten()
    assert result["authentication"]["passed"] is True
    assert result["error"] is None
    assert result["refusal"] is None
    assert result["alert"]["quantity"] == "0.01"
    assert result["unread"] == {"plot": "7"}
    (order,) = result["orders"]
    assert order["would_be_sent"] is True
    assert (order["side"], order["quantity"], order["symbol"]) == ("buy", "0.01", "BTC/USDT")
    assert order["sizing"][0]["label"] == "quantity asked for"
    assert {verdict["rule"] for verdict in order["verdicts"]} >= {"max_order_value"}
    assert secret not in json.dumps(result)
    assert not Order.objects.exists()


def test_an_alert_that_would_be_denied_says_by_what(unwritten: Callable[[], None]) -> None:
    strategy, secret = webhook()
    allow_trading(max_order_value="100")
    unwritten()

    (order,) = dry_run(strategy, body_of(secret=secret))["orders"]

    unwritten()
    assert (order["would_be_sent"], order["reason"]) == (False, "MAX_ORDER_VALUE")


@pytest.mark.parametrize(
    ("body", "passed"),
    [(body_of(), False), (body_of(secret="wrong"), False), (b"{", False)],
)
def test_a_credential_that_opens_nothing(body: bytes, passed: bool) -> None:
    strategy, _ = webhook()
    assert dry_run(strategy, body)["authentication"]["passed"] is passed


def test_signed_senders_are_not_judged_by_the_body() -> None:
    strategy, _ = webhook(auth=Strategy.Auth.HMAC)
    assert dry_run(strategy, body_of())["authentication"]["passed"] is None


def test_the_token_of_the_path() -> None:
    strategy, secret = webhook()
    assert dry_run(strategy, body_of(), path_token=secret)["authentication"]["passed"] is True


def test_what_cannot_be_read_is_told_with_its_place(unwritten: Callable[[], None]) -> None:
    strategy, secret = webhook(format="octobot")
    unwritten()
    result = dry_run(strategy, f"SYMBOL=BTCUSDT\nSIGNAL BUY\nTOKEN={secret}".encode())
    unwritten()
    assert result["error"]["code"] == "NOT_A_PAIR"
    assert result["error"]["errors"] == [{"position": "15"}]
    assert secret not in json.dumps(result)


def test_what_is_invalid_is_told_field_by_field() -> None:
    strategy, secret = webhook()
    result = dry_run(strategy, body_of(secret=secret, quantity="NaN", action="up"))
    assert [one["field"] for one in result["error"]["errors"]] == ["action", "quantity"]
    assert result["orders"] == []


def test_a_stale_alert_is_refused_and_judged_all_the_same() -> None:
    strategy, secret = webhook()
    old = (timezone.now() - timedelta(hours=1)).isoformat()
    result = dry_run(strategy, body_of(secret=secret, timestamp=old))
    assert result["refusal"]["code"] == "STALE"
    assert result["orders"][0]["would_be_sent"] is True


def test_a_strategy_without_a_route() -> None:
    strategy, secret = webhook()
    strategy.routes.all().delete()
    result = dry_run(strategy, body_of(secret=secret))
    assert (result["refusal"]["code"], result["orders"]) == ("NO_ROUTE", [])


def test_a_close_that_would_cancel_first(unwritten: Callable[[], None]) -> None:
    strategy, secret = webhook()
    account = strategy.routes.get().account
    PositionFactory.create(account=account)
    OrderFactory.create(account=account, state="open", type="limit", price=Decimal(50000))
    unwritten()
    result = dry_run(strategy, body_of(secret=secret, action="close", quantity=None))
    unwritten()
    assert (result["cancels"], result["orders"]) == (1, [])
    assert result["waits"].startswith("It would wait")


def test_the_venue_is_only_asked(
    scripted: Callable[..., Account], unwritten: Callable[[], None]
) -> None:
    allow_trading()
    route = RouteFactory.create(account=scripted())
    unwritten()

    (order,) = dry_run(route.strategy, body_of())["orders"]

    unwritten()
    assert order["would_be_sent"] is True
    assert script_of(route.account).sent == []


@pytest.mark.django_db(transaction=True)
def test_no_decision_waits_for_a_dry_run_that_waits_for_a_venue(
    scripted: Callable[..., Account], nudges: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_trading()
    quick, slow = scripted(), scripted(name="slow")
    tried = RouteFactory.create(account=quick).strategy
    RouteFactory.create(strategy=tried, account=slow)
    trading = RouteFactory.create(account=quick).strategy
    PositionFactory.create(account=quick)
    asked, answer = threading.Event(), threading.Event()
    quote = ScriptedPlugin.fetch_data

    def slowly(plugin: ScriptedPlugin, symbol: str, hint: Decimal | None = None) -> Quote:
        if plugin.config.name == "slow":
            asked.set()
            assert answer.wait(30), "the test never let the venue answer"
        return quote(plugin, symbol, hint)

    monkeypatch.setattr(ScriptedPlugin, "fetch_data", slowly)
    trying = beside(lambda: dry_run(tried, body_of()))
    assert asked.wait(20)
    close = SignalFactory.create(
        strategy=trading, action="close", alert={"symbol": "BTC/USDT", "action": "close"}
    )
    try:
        decided = beside(lambda: tasks.process_signal(str(close.pk)))
        decided.result(10)
    finally:
        answer.set()
    close.refresh_from_db()
    assert close.state == SignalState.EXECUTED
    assert [order["would_be_sent"] for order in trying.result(30)["orders"]] == [True, True]


def test_a_stored_signal_under_todays_settings(
    nudged: list[str], unwritten: Callable[[], None]
) -> None:
    strategy, secret = webhook()
    post(strategy.slug, body_of(secret=secret))
    allow_trading(max_order_value="100")
    signal = Signal.objects.get()
    unwritten()

    result = replay(signal)

    unwritten()
    assert result["signal_id"] == str(signal.pk)
    assert result["then"]["state"] == "received"
    assert result["orders"][0]["reason"] == "MAX_ORDER_VALUE"
    assert "authentication" not in result


def test_a_signal_is_read_anew_by_a_mapping_that_was_mended(nudged: list[str]) -> None:
    strategy, _ = webhook()
    signal = SignalFactory.create(strategy=strategy, body='{"pair": "BTC/USDT", "side": "buy"}')
    assert replay(signal)["error"]["code"] == "INVALID"
    strategy.format = "mapping"
    fields = {"symbol": "pair", "action": "side"}
    strategy.format_options = {"fields": {name: {"path": path} for name, path in fields.items()}}
    strategy.save()
    signal.refresh_from_db()
    assert replay(signal)["alert"]["symbol"] == "BTC/USDT"


def test_a_signal_whose_text_was_pruned_is_judged_by_its_alert(
    nudged: list[str], unwritten: Callable[[], None]
) -> None:
    strategy, secret = webhook()
    post(strategy.slug, body_of(secret=secret))
    allow_trading()
    Signal.objects.update(body="")
    signal = Signal.objects.get()
    unwritten()

    result = replay(signal)

    unwritten()
    assert result["error"] is None
    (order,) = result["orders"]
    assert (order["side"], order["quantity"], order["would_be_sent"]) == ("buy", "0.01", True)


@pytest.mark.parametrize("asked_by", ["a sender", "an operator"])
def test_a_web_process_has_a_signal_replayed_elsewhere_where_its_venue_needs_an_sdk(
    monkeypatch: pytest.MonkeyPatch, asked_by: str
) -> None:
    route = RouteFactory.create(account=AccountFactory.create(broker="ccxt"))
    signal = SignalFactory.create(strategy=route.strategy)
    if asked_by == "an operator":
        alert = ALERT | {"account": route.account.name}
        signal = SignalFactory.create(
            strategy=StrategyFactory.create(), auth="operator", alert=alert
        )
    asked: list[tuple[str, ...]] = []

    def elsewhere(*arguments: str) -> dict[str, Any]:
        asked.append(arguments)
        return {"orders": [{"account": "there"}]}

    monkeypatch.setattr(module, "_by_command", elsewhere)

    assert replay_from_a_web_process(signal) == {"orders": [{"account": "there"}]}
    assert asked == [(str(signal.pk),)]


def test_an_operators_own_order_is_replayed_as_it_was(nudged: list[str]) -> None:
    route = RouteFactory.create()
    allow_trading()
    signal = SignalFactory.create(
        strategy=route.strategy,
        auth="operator",
        alert=ALERT | {"account": route.account.name},
    )
    assert replay(signal)["orders"][0]["account"] == route.account.name


def test_a_web_process_asks_a_venue_with_an_sdk_from_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strategy, secret = webhook()
    Account.objects.update(broker="ccxt")
    asked: list[str] = []

    def elsewhere(_: Strategy, body: str) -> dict[str, Any]:
        asked.append(body)
        return {"refusal": None, "orders": [{"account": "there"}]}

    monkeypatch.setattr(module, "_in_a_process", elsewhere)
    result = from_a_web_process(strategy, body_of(secret=secret))

    assert result["orders"] == [{"account": "there"}]
    assert result["authentication"]["passed"] is True
    assert secret not in asked[0]


def test_a_process_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "executable", "/bin/false")
    with pytest.raises(module.DryRunFailed):
        module._in_a_process(Strategy(slug="x"), "{}")


def test_a_masked_text_is_not_masked_again(nudged: list[str]) -> None:
    strategy, secret = webhook(format="octobot")
    post(strategy.slug, f"SYMBOL=BTCUSDT\nSIGNAL=BUY\nTOKEN={secret}".encode())
    signal = Signal.objects.get()
    assert replay(signal)["body"] == signal.body
