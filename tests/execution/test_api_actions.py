"""What operators do through the REST API, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.db.models import QuerySet
from django.test import Client
from kombu.exceptions import OperationalError

from brokers.models import Account
from brokers.types import VenueStatus
from execution import account_tasks, commands, nudge, sweeping, tasks, waiting
from execution.models import Order, Signal, Strategy
from execution.states import OrderState, SignalState
from risk import breakers, switch
from risk.models import AuditEvent, CircuitBreaker, TradingState
from tests.brokers.scripted import report_of, script_of
from tests.factories import (
    PASSWORD,
    AccountFactory,
    OrderFactory,
    PositionFactory,
    SignalFactory,
    UserFactory,
    allow_trading,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("quick_passwords")]

API = "/api/v1"
POWERS = (
    "view_order",
    "add_order",
    "change_order",
    "view_circuitbreaker",
    "operate_circuitbreaker",
    "view_tradingstate",
    "change_tradingstate",
)
BUY = {"account": "desk", "symbol": "BTC/USDT", "side": "buy", "quantity": "0.01"}


def headers_of(client: Client, user: User) -> dict[str, str]:
    credentials = {"username": user.username, "password": PASSWORD}
    answer = client.post("/api/token", credentials, content_type="application/json")
    return {"Authorization": f"Bearer {answer.json()['access']}"}


def deeds() -> QuerySet[AuditEvent]:
    """What is kept of what somebody did, beside that they came with a token."""
    return AuditEvent.objects.exclude(kind="login.token_made")


@pytest.fixture
def quick_passwords(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def operator(client: Client) -> Callable[..., Any]:
    """POST as somebody who may do everything the API offers."""
    user = UserFactory.create(username="olivia")
    user.user_permissions.set(Permission.objects.filter(codename__in=POWERS))
    headers = headers_of(client, user)

    def post(path: str, body: Any, **more: str) -> Any:
        return client.post(
            f"{API}{path}", body, content_type="application/json", headers=headers | more
        )

    return post


@pytest.fixture
def desk() -> Account:
    allow_trading()
    return AccountFactory.create(name="desk")


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that answers a nudge at once."""
    monkeypatch.setattr(nudge, "nudge_signal", tasks.process_signal)


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nobody works on nudges; they are listed."""
    nudges: list[str] = []
    monkeypatch.setattr(nudge, "nudge_signal", nudges.append)
    return nudges


ACTIONS = {
    "/orders": BUY,
    "/orders/{order}/cancel": {},
    "/orders/{order}/amend": {"price": "50000"},
    "/breakers/desk/reset": {"reason": "the venue is back"},
    "/breakers/desk/trip": {"reason": "they announced an outage"},
    "/trading-state": {"state": "halted", "reason": "a drill"},
}


@pytest.mark.parametrize(
    ("held", "status"), [(["change"], 403), (["add"], 403), (["add", "change"], 202)]
)
def test_an_amend_is_for_those_who_may_cancel_and_place(
    client: Client, desk: Account, no_worker: list[str], held: list[str], status: int
) -> None:
    order = OrderFactory.create(account=desk, type="limit", price=60000, state="open")
    user = UserFactory.create()
    names = [f"{one}_order" for one in ("view", *held)]
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    answer = client.post(
        f"{API}/orders/{order.pk}/amend",
        {"price": "50000"},
        content_type="application/json",
        headers=headers_of(client, user),
    )
    assert answer.status_code == status


@pytest.mark.parametrize("path", ACTIONS)
@pytest.mark.parametrize("slash", ["", "/"])
def test_an_action_is_for_those_who_may(
    client: Client, desk: Account, no_worker: list[str], path: str, slash: str
) -> None:
    order = OrderFactory.create(account=desk)
    breakers.of_account(desk.pk)
    viewer = UserFactory.create()
    viewer.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    url = API + path.format(order=order.pk) + slash
    body = ACTIONS[path]

    stranger = client.post(url, body, content_type="application/json")
    powerless = client.post(
        url, body, content_type="application/json", headers=headers_of(client, viewer)
    )

    assert stranger.status_code == 401
    assert stranger.json()["code"] == "NOT_AUTHENTICATED"
    assert powerless.status_code == 403
    assert powerless.json()["code"] == "PERMISSION_DENIED"
    assert no_worker == []
    assert not deeds().exists()


# --- orders ---------------------------------------------------------------------------------------


def test_an_order_by_hand_is_sized_judged_and_sent(
    operator: Callable[..., Any], desk: Account, worker: None
) -> None:
    answer = operator("/orders", BUY | {"reason": "closing the book"})

    assert answer.status_code == 201, answer.content
    order = answer.json()
    assert (order["account"], order["strategy"], order["symbol"]) == ("desk", "manual", "BTC/USDT")
    assert (order["side"], order["type"], order["quantity"]) == ("buy", "market", "0.01")
    assert (order["state"], order["filled_quantity"]) == ("filled", "0.01")
    row = Order.objects.get(pk=order["id"])
    assert row.sizing
    assert {verdict["rule"] for verdict in row.verdicts} >= {"max_order_value"}
    event = AuditEvent.objects.get(kind="order.requested")
    assert (event.actor, event.address) == ("olivia", "127.0.0.1")
    assert event.reason == "closing the book"
    assert event.correlation_id == str(row.signal_id)
    assert event.after == {
        "account": "desk",
        "symbol": "BTC/USDT",
        "action": "buy",
        "quantity": "0.01",
    }
    assert Signal.objects.get(pk=row.signal_id).auth == "operator"


def test_numbers_keep_every_digit(
    operator: Callable[..., Any], desk: Account, worker: None
) -> None:
    body = (
        '{"account":"desk","symbol":"BTC/USDT","side":"buy","type":"limit",'
        '"quantity":0.010000000000000001,"price":"50000.10"}'
    )

    operator("/orders", body)

    asked = Signal.objects.get().alert
    assert asked["quantity"] == "0.010000000000000001"
    assert asked["price"] == "50000.1"


def test_a_limit_order_rests(operator: Callable[..., Any], desk: Account, worker: None) -> None:
    answer = operator("/orders", BUY | {"type": "limit", "price": "50000"})

    assert answer.status_code == 201, answer.content
    assert (answer.json()["state"], answer.json()["price"]) == ("open", "50000")


def test_an_order_risk_denies_says_why(
    operator: Callable[..., Any], desk: Account, worker: None
) -> None:
    allow_trading(max_order_value="100")

    answer = operator("/orders", BUY)

    assert answer.status_code == 422
    assert answer.json()["code"] == "MAX_ORDER_VALUE"
    assert "above the limit of 100" in answer.json()["detail"]
    assert Order.objects.get().state == OrderState.DENIED


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"account": "nobody"}, "UNKNOWN_ACCOUNT"),
        ({"symbol": "NOPE"}, "UNKNOWN_SYMBOL"),
        ({"quantity": "0.000000001"}, "SIZE_TOO_SMALL"),
        ({"type": "limit"}, "PRICE_MISSING"),
        ({"reduce_only": True}, "NOTHING_TO_CLOSE"),
    ],
)
def test_an_order_that_cannot_be(
    operator: Callable[..., Any], desk: Account, worker: None, change: dict[str, Any], code: str
) -> None:
    answer = operator("/orders", BUY | change)

    assert answer.status_code == 422, answer.content
    assert answer.json()["code"] == code
    assert not Order.objects.exclude(state=OrderState.DENIED).exists()


def test_an_entry_needs_a_quantity_and_an_exit_takes_the_whole_position(
    operator: Callable[..., Any], desk: Account, worker: None
) -> None:
    body = {name: value for name, value in BUY.items() if name != "quantity"}
    assert operator("/orders", body).json()["code"] == "SIZE_MISSING"
    assert operator("/orders", BUY).status_code == 201

    answer = operator("/orders", body | {"side": "sell", "reduce_only": True})

    assert answer.status_code == 201, answer.content
    assert (answer.json()["role"], answer.json()["quantity"]) == ("exit", "0.01")


@pytest.mark.parametrize("where", [{}, {"scope": "strategy", "key": "manual"}])
def test_the_kill_switch_stops_manual_orders(
    operator: Callable[..., Any], desk: Account, worker: None, where: dict[str, str]
) -> None:
    Strategy.objects.create(slug="manual")
    operator("/trading-state", {"state": "halted", "reason": "a drill"} | where)

    answer = operator("/orders", BUY)

    assert answer.status_code == 422
    assert answer.json()["code"] == "TRADING_HALTED"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"symbol": "BTC/USDT", "side": "buy"}, "account"),
        (BUY | {"side": "hold"}, "side"),
        (BUY | {"quantity": "0"}, "quantity"),
        (BUY | {"quantity": "-1"}, "quantity"),
        (BUY | {"quantity": "1e400"}, "quantity"),
        (BUY | {"quantity": "NaN"}, "quantity"),
        (BUY | {"quantity": None}, "quantity"),
        (BUY | {"quantity": True}, "quantity"),
        (BUY | {"quantity": [1]}, "quantity"),
        (BUY | {"type": "trailing_stop"}, "type"),
        (BUY | {"post_only": "yes"}, "post_only"),
        (BUY | {"symbol": ""}, "symbol"),
        (BUY | {"symbol": 7}, "symbol"),
        (BUY | {"stop_prise": "1"}, "stop_prise"),
        (BUY | {"reason": "   "}, "reason"),
    ],
)
def test_an_order_that_cannot_be_read(
    operator: Callable[..., Any], desk: Account, no_worker: list[str], body: Any, field: str
) -> None:
    answer = operator("/orders", body)

    assert answer.status_code == 400, answer.content
    assert answer.json()["code"] == "INVALID"
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert not Signal.objects.exists()
    assert no_worker == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("", 400, "INVALID"),
        ("[]", 400, "NOT_AN_OBJECT"),
        ("null", 400, "NOT_AN_OBJECT"),
        ("{", 400, "NOT_JSON"),
        ('{"account":"a","account":"b"}', 400, "DUPLICATE_KEY"),
        (b"\xff", 400, "NOT_UTF8"),
        ('{"quantity":1e400}', 422, "NUMBER_OUT_OF_BOUNDS"),
        ('{"account":"\\u0000"}', 422, "FORBIDDEN_CHARACTER"),
        ('{"a":' * 20 + "1" + "}" * 20, 422, "TOO_DEEP"),
        ("x" * 70_000, 413, "TOO_LARGE"),
    ],
)
def test_a_body_that_is_no_sound_json_object(
    operator: Callable[..., Any], desk: Account, body: Any, status: int, code: str
) -> None:
    answer = operator("/orders", body)

    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_only_json_is_taken(client: Client, desk: Account) -> None:
    headers = headers_of(client, UserFactory.create(is_superuser=True))

    answer = client.post(f"{API}/orders", BUY, headers=headers)

    assert answer.status_code == 415
    assert answer.json()["code"] == "UNSUPPORTED_MEDIA_TYPE"


def test_without_workers_the_order_is_kept_and_says_so(
    operator: Callable[..., Any],
    desk: Account,
    no_worker: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "wait_for", lambda *_: None)

    answer = operator("/orders", BUY)

    assert answer.status_code == 202
    signal = Signal.objects.get()
    assert answer.json() == {"status": "accepted", "signal_id": str(signal.pk)}
    assert signal.state == SignalState.RECEIVED
    assert no_worker == [str(signal.pk)]


def test_the_same_key_places_one_order(
    operator: Callable[..., Any], desk: Account, worker: None
) -> None:
    key = {"Idempotency-Key": "desk-2026-1"}
    first, again = operator("/orders", BUY, **key), operator("/orders", BUY, **key)

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]
    assert Order.objects.count() == 1
    assert AuditEvent.objects.filter(kind="order.requested").count() == 1


def test_a_key_is_ones_own_and_of_one_account(
    client: Client, operator: Callable[..., Any], desk: Account, worker: None
) -> None:
    AccountFactory.create(name="other")
    key = {"Idempotency-Key": "1"}
    bert = UserFactory.create(username="bert")
    bert.user_permissions.set(Permission.objects.filter(codename__in=POWERS))
    placed = [
        operator("/orders", BUY, **key),
        operator("/orders", BUY | {"account": "other"}, **key),
        client.post(
            f"{API}/orders", BUY, "application/json", headers=headers_of(client, bert) | key
        ),
    ]
    assert [answer.status_code for answer in placed] == [201, 201, 201]
    assert [answer.json()["account"] for answer in placed] == ["desk", "other", "desk"]
    assert Order.objects.count() == 3


@pytest.mark.parametrize("change", [{"quantity": "0.02"}, {"side": "sell"}, {"symbol": "ETH/USDT"}])
def test_a_key_that_stands_for_another_order_is_refused(
    operator: Callable[..., Any], desk: Account, worker: None, change: dict[str, str]
) -> None:
    key = {"Idempotency-Key": "k" * 150 + "1"}
    first = operator("/orders", BUY, **key)
    answer = operator("/orders", BUY | change, **key)
    assert (answer.status_code, answer.json()["code"]) == (422, "KEY_REUSED")
    assert Order.objects.count() == 1
    assert operator("/orders", BUY | {"reason": "again"}, **key).json()["id"] == first.json()["id"]


def test_a_key_of_an_order_places_no_change_of_another(
    operator: Callable[..., Any], desk: Account, no_worker: list[str]
) -> None:
    limit = {"account": desk, "type": "limit", "price": "50000", "state": OrderState.OPEN}
    key, change = {"Idempotency-Key": "1"}, {"price": "51000"}
    first, second = (OrderFactory.create(**limit) for _ in range(2))
    answers = [
        operator(f"/orders/{first.pk}/amend", change, **key),
        operator(f"/orders/{first.pk}/amend", change, **key),
        operator(f"/orders/{second.pk}/amend", change, **key),
    ]
    assert [answer.status_code for answer in answers] == [202, 202, 202]
    once, again, other = (answer.json()["signal_id"] for answer in answers)
    assert once == again != other
    reused = operator(f"/orders/{first.pk}/amend", {"price": "52000"}, **key)
    assert (reused.status_code, reused.json()["code"]) == (422, "KEY_REUSED")
    assert len(no_worker) == 2


def test_the_same_order_without_a_key_is_a_second_order(
    operator: Callable[..., Any], desk: Account, worker: None
) -> None:
    assert operator("/orders", BUY).json()["id"] != operator("/orders", BUY).json()["id"]


@pytest.mark.parametrize(("header", "seconds"), [("wait=2", 2.0), ("", 5.0), ("wait=99", 10.0)])
def test_how_long_it_waits(
    operator: Callable[..., Any],
    desk: Account,
    no_worker: list[str],
    monkeypatch: pytest.MonkeyPatch,
    header: str,
    seconds: float,
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(waiting, "wait_for", lambda _, seconds: waited.append(seconds))

    operator("/orders", BUY, Prefer=header)

    assert waited == [seconds]


# --- cancel ---------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The orders a worker was asked to cancel."""
    orders: list[str] = []
    monkeypatch.setattr(
        tasks.cancel_order, "apply_async", lambda arguments, retry: orders.append(arguments[0])
    )
    return orders


def test_an_unsent_order_is_canceled_at_once(
    operator: Callable[..., Any], desk: Account, asked: list[str]
) -> None:
    signal = SignalFactory.create(state=SignalState.WORKING)
    order = OrderFactory.create(account=desk, signal=signal)

    answer = operator(f"/orders/{order.pk}/cancel", {"reason": "changed my mind"})

    assert answer.status_code == 202, answer.content
    assert (answer.json()["id"], answer.json()["state"]) == (str(order.pk), "canceled")
    assert asked == []
    signal.refresh_from_db()
    assert signal.state == SignalState.IGNORED
    event = AuditEvent.objects.get(kind="order.cancel_asked")
    assert (event.actor, event.reason, event.before) == (
        "olivia",
        "changed my mind",
        {"state": "pending"},
    )
    assert order.journal.get().detail == "cancel asked for by olivia"


@pytest.mark.parametrize("state", ["open", "partially_filled", "canceling"])
def test_an_order_at_the_venue_is_canceled_by_a_worker(
    operator: Callable[..., Any], desk: Account, asked: list[str], state: str
) -> None:
    order = OrderFactory.create(account=desk, state=state, broker_order_id="7")

    answer = operator(f"/orders/{order.pk}/cancel", {})

    assert answer.status_code == 202
    assert answer.json()["state"] == state
    assert asked == [str(order.pk)]
    assert deeds().get().kind == "order.cancel_asked"


@pytest.mark.parametrize("state", ["filled", "canceled"])
def test_an_order_that_has_ended_cannot_be_canceled(
    operator: Callable[..., Any], desk: Account, asked: list[str], state: str
) -> None:
    order = OrderFactory.create(account=desk, state=state)

    answer = operator(f"/orders/{order.pk}/cancel", {})

    assert answer.status_code == 409
    assert answer.json()["code"] == "ORDER_ENDED"
    assert asked == []
    assert not deeds().exists()


@pytest.mark.parametrize("state", ["submitting", "unknown", "needs_operator"])
def test_the_cancel_of_an_order_of_unknown_fate_is_kept_for_when_it_is_found(
    operator: Callable[..., Any], desk: Account, asked: list[str], state: str
) -> None:
    order = OrderFactory.create(account=desk, state=state)

    answer = operator(f"/orders/{order.pk}/cancel", {})

    assert (answer.status_code, answer.json()["state"]) == (202, state)
    order.refresh_from_db()
    assert (order.cancel_reason, order.cancel_asked_by) == ("CANCELED_BY_OPERATOR", "olivia")


def test_an_order_claimed_meanwhile_is_not_called_canceled(desk: Account, asked: list[str]) -> None:
    order = OrderFactory.create(account=desk)
    Order.objects.filter(pk=order.pk).update(state=OrderState.SUBMITTING, attempt=1)

    commands.cancel(order, "too late")

    assert order.state == OrderState.SUBMITTING
    assert asked == [str(order.pk)]


def test_a_cancel_that_reaches_no_worker_is_found_by_the_sweep(
    operator: Callable[..., Any], scripted: Callable[..., Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OperationalError("Error 111 connecting to 10.0.0.7:6379")

    monkeypatch.setattr(tasks.cancel_order, "apply_async", fail)
    account = scripted()
    order = OrderFactory.create(account=account, state=OrderState.OPEN, broker_order_id="V1")
    script_of(account).reports[order.identity] = report_of(order, VenueStatus.OPEN)

    answer = operator(f"/orders/{order.pk}/cancel", {})

    assert (answer.status_code, answer.json()["state"]) == (202, "open")
    assert sweeping.accounts_to_wind_down() == {account.pk}
    account_tasks.wind_down(account.pk)
    order.refresh_from_db()
    assert (order.state, order.detail) == (OrderState.CANCELED, "cancel asked for by olivia")


def test_an_order_nobody_has(operator: Callable[..., Any]) -> None:
    assert operator(f"/orders/{uuid4()}/cancel", {}).status_code == 404
    assert operator("/orders/seven/cancel", {}).status_code == 404


# --- breakers and switches ------------------------------------------------------------------------


def test_a_breaker_is_reset_with_a_reason(operator: Callable[..., Any], desk: Account) -> None:
    breakers.trip(breakers.of_account(desk.pk), "maintenance")
    assert operator("/breakers/desk/reset", {}).status_code == 400

    answer = operator("/breakers/desk/reset", {"reason": "it is over"})

    assert answer.status_code == 200
    assert (answer.json()["account"], answer.json()["state"]) == ("desk", "closed")
    assert CircuitBreaker.objects.get(account=desk).state == "closed"
    event = AuditEvent.objects.get(kind="breaker.reset")
    assert (event.actor, event.reason) == ("olivia", "it is over")


def test_a_breaker_is_tripped_with_a_reason(operator: Callable[..., Any], desk: Account) -> None:
    breakers.of_account(desk.pk)
    assert operator("/breakers/desk/trip", {}).status_code == 400

    answer = operator("/breakers/desk/trip", {"reason": "they announced an outage"})

    assert answer.status_code == 200
    assert (answer.json()["account"], answer.json()["state"]) == ("desk", "open")
    event = AuditEvent.objects.get(kind="breaker.tripped")
    assert (event.actor, event.reason) == ("olivia", "they announced an outage")


def test_a_venues_breaker_is_addressed_by_its_venue(
    operator: Callable[..., Any], desk: Account
) -> None:
    breaker = breakers.of_venue(desk)
    breakers.trip(breaker, "maintenance")
    answer = operator(f"/breakers/{breaker.name}/reset", {"reason": "it is over"})
    told = answer.json()
    assert (told["name"], told["account"], told["venue"], told["state"]) == (
        "venue:paper", None, "paper", "closed",
    )  # fmt: skip
    assert operator("/breakers/venue:mars/reset", {"reason": "typo"}).status_code == 404


def test_a_breaker_nobody_has(operator: Callable[..., Any]) -> None:
    assert operator("/breakers/nobody/reset", {"reason": "typo"}).status_code == 404


def test_the_switch_is_in_force_when_it_is_answered(
    operator: Callable[..., Any], desk: Account
) -> None:
    body = {"state": "reducing", "scope": "account", "key": "desk", "reason": "too hot"}

    answer = operator("/trading-state", body)

    assert answer.status_code == 200
    shown = answer.json()
    assert shown.pop("changed_at")
    left = {"orders": [], "positions": []}
    assert shown == body | {
        "flatten": False,
        "left": left,
        "generation": 1,
        "changed_by": "olivia",
    }
    standing = switch.standing(account="desk", venue="paper", symbol="BTC/USDT")
    assert standing is not None
    assert standing.state == TradingState.State.REDUCING
    event = deeds().get()
    assert (event.kind, event.actor, event.reason) == ("trading_state.changed", "olivia", "too hot")


def test_a_queue_that_hangs_is_waited_for_once(
    operator: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        PositionFactory.create()
    asked: list[Any] = []

    def hang(row: Any, **_: Any) -> None:
        asked.append(row)
        raise OperationalError("timed out")

    monkeypatch.setattr(account_tasks.wind_down, "apply_async", hang)
    answer = operator("/trading-state", {"mode": "flatten", "reason": "out"})
    assert answer.status_code == 200
    assert len(answer.json()["left"]["positions"]) == 3
    assert len(asked) == 1
    assert sweeping.accounts_to_wind_down() == set(Account.objects.values_list("pk", flat=True))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"scope": "account", "key": "dsek"}, "UNKNOWN_ACCOUNT"),
        ({"scope": "account"}, "UNKNOWN_ACCOUNT"),
        ({"scope": "strategy", "key": "desk"}, "UNKNOWN_STRATEGY"),
        ({"key": "desk"}, "KEY_NOT_EXPECTED"),
    ],
)
def test_a_switch_nobody_has_is_refused(
    operator: Callable[..., Any], desk: Account, change: dict[str, str], code: str
) -> None:
    answer = operator("/trading-state", {"state": "halted", "reason": "typo"} | change)

    assert answer.status_code == 422
    assert answer.json()["code"] == code
    assert not TradingState.objects.exists()


@pytest.mark.parametrize("body", [{"state": "off", "reason": "x"}, {"state": "halted"}, {}])
def test_a_switch_that_cannot_be_read(operator: Callable[..., Any], body: dict[str, str]) -> None:
    assert operator("/trading-state", body).status_code == 400
    assert not TradingState.objects.exists()
