"""The REST API read by strangers, viewers and operators."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from brokers.models import ExchangeCredential
from execution.api import VIEWS
from execution.authentication import new_secret
from execution.models import Order, SpreadWatch, Strategy
from execution.states import OrderState
from risk import audit, breakers, proposals, switch
from risk.models import RiskLimit, Safeguards, TradingState
from risk.proposable import limit_payload
from tests.factories import (
    PASSWORD,
    AccountFactory,
    FillFactory,
    OrderFactory,
    PositionFactory,
    RouteFactory,
    SignalFactory,
    StrategyFactory,
    UserFactory,
    allow_trading,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("quick_passwords")]

API = "/api/v1"
Call = Callable[..., Any]


def permit(user: User, *codenames: str) -> User:
    user.user_permissions.add(*Permission.objects.filter(codename__in=codenames))
    return user


def bearer(client: Client, user: User) -> dict[str, str]:
    answer = client.post(
        "/api/token",
        {"username": user.username, "password": PASSWORD},
        content_type="application/json",
    )
    assert answer.status_code == 200, answer.content
    return {"Authorization": f"Bearer {answer.json()['access']}"}


@pytest.fixture
def quick_passwords(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def viewer(client: Client) -> Call:
    """GET as somebody who may see every model and do nothing."""
    user = UserFactory.create()
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    headers = bearer(client, user)
    return lambda path, **query: client.get(f"{API}{path}", query, headers=headers)


@pytest.fixture
def everything(client: Client) -> dict[str, Any]:
    """One row of every kind, two orders, with canaries where secrets are."""
    strategy = StrategyFactory.create(slug="trend")
    account = AccountFactory.create(name="desk", options={"base_url": "https://canary-option.test"})
    RouteFactory.create(strategy=strategy, account=account)
    credential = ExchangeCredential(account=account)
    credential.seal({"api_key": "canary-api-key-123", "api_secret": "canary-secret"})
    credential.save()
    new_secret(strategy, Strategy.Auth.TOKEN, "canary-webhook-token")
    signal = SignalFactory.create(strategy=strategy)
    order = OrderFactory.create(account=account, strategy=strategy, signal=signal)
    FillFactory.create(order=order, trade_id="t1", realised_pnl=Decimal("-0.60"))
    OrderFactory.create(account=account, strategy=strategy, state=OrderState.FILLED)
    PositionFactory.create(account=account, quantity=Decimal(100), realised_pnl=Decimal("1E+3"))
    breakers.of_account(account.pk)
    allow_trading()
    switch.change(TradingState.State.REDUCING, reason="a quiet day")
    Safeguards.objects.update_or_create(pk=1, defaults={"two_person": True})
    looser = limit_payload("max_order_value", Decimal(10**9))
    proposal = proposals.submit("limit", looser, reason="more room")
    assert proposal is not None
    return {
        "signals": str(signal.pk),
        "orders": str(order.pk),
        "fills": str(order.fills.get().pk),
        "positions": str(account.positions.get().pk),
        "accounts": "desk",
        "strategies": "trend",
        "spreads": str(SpreadWatch.objects.create(symbol="BTC/USDT").pk),
        "breakers": "desk",
        "limits": str(RiskLimit.objects.get(rule="max_order_value").pk),
        "audit": str(audit.record("test", "subject").pk),
        "proposals": str(proposal.pk),
    }


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("name", VIEWS)
def test_a_list_is_for_those_who_may_view(
    client: Client, viewer: Call, name: str, slash: str
) -> None:
    stranger = client.get(f"{API}/{name}{slash}")
    assert stranger.status_code == 401
    assert stranger.json() == {
        "code": "NOT_AUTHENTICATED",
        "detail": "Authentication credentials were not provided.",
    }
    assert stranger["WWW-Authenticate"].startswith("Bearer")

    headers = bearer(client, UserFactory.create())
    powerless = client.get(f"{API}/{name}{slash}", headers=headers)
    assert powerless.status_code == 403
    assert powerless.json()["code"] == "PERMISSION_DENIED"

    listed = viewer(f"/{name}{slash}").json()
    assert (listed["next"], listed["previous"]) == (None, None)
    # the tokens they came with are all there is to tell
    left = {"login.token_made"} if name == "audit" else set()
    assert {row["kind"] for row in listed["results"]} == left


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("name", [name for name in VIEWS if name != "trading-state"])
def test_a_detail_is_for_those_who_may_view(
    client: Client, viewer: Call, everything: dict[str, Any], name: str, slash: str
) -> None:
    path = f"/{name}/{everything[name]}{slash}"

    assert client.get(f"{API}{path}").status_code == 401
    powerless = bearer(client, UserFactory.create())
    assert client.get(f"{API}{path}", headers=powerless).status_code == 403
    assert viewer(path).status_code == 200
    missing = viewer(f"/{name}/0")
    assert missing.status_code == 404
    assert missing.json()["code"] == "NOT_FOUND"


def test_nothing_shows_a_secret(viewer: Call, everything: dict[str, Any]) -> None:
    paths = [f"/{name}" for name in VIEWS] + [f"/{name}/{key}" for name, key in everything.items()]
    for path in paths:
        text = viewer(path).content
        assert b"canary" not in text, path
        assert b"digest" not in text, path
        assert b"sealed" not in text, path


# More: the routes with their accounts; what is left of the one switch that is set.
QUERIES = {"strategies": 6, "trading-state": 6}


@pytest.mark.parametrize("name", VIEWS)
def test_a_list_costs_the_same_however_long(
    client: Client,
    everything: dict[str, Any],
    name: str,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    """The user, the user's and the groups' permissions, the accounts they work with, and the rows."""
    user = UserFactory.create()
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    headers = bearer(client, user)
    for _ in range(3):
        RouteFactory.create()
        OrderFactory.create(signal=SignalFactory.create())

    with django_assert_num_queries(QUERIES.get(name, 5)):
        assert client.get(f"{API}/{name}", headers=headers).status_code == 200


@pytest.mark.parametrize(("name", "queries"), [("orders", 7), ("signals", 7)])
def test_a_detail_costs_the_same_however_long_its_story(
    viewer: Call,
    everything: dict[str, Any],
    name: str,
    queries: int,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    order = Order.objects.get(pk=everything["orders"])
    for number in range(3):
        FillFactory.create(order=order, trade_id=f"more-{number}")

    with django_assert_num_queries(queries):
        assert viewer(f"/{name}/{everything[name]}").status_code == 200


def test_numbers_are_plain_decimal_strings(viewer: Call, everything: dict[str, Any]) -> None:
    (position,) = viewer("/positions").json()["results"]
    assert position["quantity"] == "100"
    assert position["realised_pnl"] == "1000"
    (fill,) = viewer("/fills").json()["results"]
    assert (fill["realised_pnl"], fill["quantity"], fill["fee"]) == ("-0.6", "0.01", "0")
    order = viewer(f"/orders/{everything['orders']}").json()
    assert (order["quantity"], order["price"]) == ("0.01", None)


def test_an_order_tells_its_story(viewer: Call, everything: dict[str, Any]) -> None:
    order = viewer(f"/orders/{everything['orders']}").json()

    assert order["id"] == everything["orders"]
    assert order["signal"] == everything["signals"]
    assert (order["account"], order["strategy"]) == ("desk", "trend")
    assert (order["state"], order["client_order_id"]) == ("pending", order["id"].replace("-", ""))
    assert [fill["trade_id"] for fill in order["fills"]] == ["t1"]
    assert order["journal"] == order["verdicts"] == order["sizing"] == []


def test_pages_run_from_new_to_old_without_counting(client: Client, viewer: Call) -> None:
    made = [str(OrderFactory.create().pk) for _ in range(5)]

    first = viewer("/orders", page_size=2).json()
    assert [row["id"] for row in first["results"]] == [made[4], made[3]]
    assert first["previous"] is None
    second = viewer(first["next"].removeprefix(f"http://testserver{API}")).json()
    assert [row["id"] for row in second["results"]] == [made[2], made[1]]
    third = viewer(second["next"].removeprefix(f"http://testserver{API}")).json()
    assert [row["id"] for row in third["results"]] == [made[0]]
    assert third["next"] is None
    back = viewer(third["previous"].removeprefix(f"http://testserver{API}")).json()
    assert [row["id"] for row in back["results"]] == [made[2], made[1]]


@pytest.mark.parametrize("size", ["0", "501", "-1", "ten", "1.5", ""])
def test_an_impossible_page_size_is_refused(viewer: Call, size: str) -> None:
    answer = viewer("/orders", page_size=size)

    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"field": "page_size", "detail": "must be from 1 to 500"}]


@pytest.mark.parametrize("name", ["orders", "accounts"])
@pytest.mark.parametrize("cursor", ["", "x", "cD1ub3QtYS1rZXk=", "bz0tMQ=="])
def test_a_forged_cursor_finds_no_page(viewer: Call, name: str, cursor: str) -> None:
    answer = viewer(f"/{name}", cursor=cursor)

    assert answer.status_code == 404
    assert answer.json() == {"code": "NOT_FOUND", "detail": "Invalid cursor"}


def test_a_misspelt_filter_is_refused(viewer: Call) -> None:
    answer = viewer("/orders", acount="desk")

    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"field": "acount", "detail": "there is no such filter"}]


@pytest.mark.parametrize(
    ("path", "query", "found"),
    [
        ("/orders", {"account": "desk"}, 2),
        ("/orders", {"account": "other"}, 0),
        ("/orders", {"state": ["pending", "filled"]}, 2),
        ("/orders", {"state": "filled"}, 1),
        ("/orders", {"symbol": "BTC/USDT", "side": "buy", "type": "market", "role": "entry"}, 2),
        ("/orders", {"side": "sell"}, 0),
        ("/orders", {"strategy": "trend", "reason": "STALE"}, 0),
        ("/signals", {"strategy": "trend", "state": "received", "action": "buy"}, 1),
        ("/signals", {"symbol": "ETH/USDT"}, 0),
        ("/fills", {"account": "desk", "side": "buy"}, 1),
        ("/positions", {"is_open": "true"}, 1),
        ("/positions", {"is_open": "false"}, 0),
        ("/accounts", {"broker": "paper", "environment": "dry_run", "is_active": "true"}, 1),
        ("/accounts", {"environment": "live"}, 0),
        ("/strategies", {"account": "desk", "is_enabled": "true", "auth": "token"}, 1),
        ("/breakers", {"account": "desk", "state": "closed"}, 1),
        ("/breakers", {"state": "open"}, 0),
        ("/limits", {"rule": "max_order_value", "mode": "enforce"}, 1),
        ("/limits", {"strategy": "trend"}, 0),
        ("/audit", {"kind": "trading_state.changed", "actor": "system"}, 1),
        ("/trading-state", {"scope": "global", "state": "reducing"}, 1),
    ],
)
def test_filters(
    viewer: Call, everything: dict[str, Any], path: str, query: dict[str, Any], found: int
) -> None:
    answer = viewer(path, **query)

    assert answer.status_code == 200, answer.content
    assert len(answer.json()["results"]) == found


def test_filters_by_time(viewer: Call, everything: dict[str, Any]) -> None:
    now = timezone.now()
    soon, past = (now + timedelta(hours=1)).isoformat(), (now - timedelta(hours=1)).isoformat()

    assert len(viewer("/orders", created_since=past, created_before=soon).json()["results"]) == 2
    assert viewer("/orders", created_since=soon).json()["results"] == []
    assert viewer("/fills", before=past).json()["results"] == []
    assert viewer("/audit", since="yesterday").status_code == 400
    for far in ("2026-01-01T00:00:00+23:58", "0001-01-01T00:00:00+23:58"):
        assert viewer("/orders", created_since=far).status_code == 200


@pytest.mark.parametrize("text", ["flase", "True", "1", "null", ""])
def test_a_flag_is_true_or_false(viewer: Call, text: str) -> None:
    for path, name in (("/accounts", "is_active"), ("/positions", "is_open")):
        answer = viewer(path, **{name: text})
        assert answer.status_code == 400
        assert [error["field"] for error in answer.json()["errors"]] == [name]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"state": "lost"}, "state"),
        ({"signal": "not-a-uuid"}, "signal"),
        ({"account": "a\x00b"}, "account"),
        ({"account": ""}, "account"),
        ({"account": " "}, "account"),
        ({"account": ["a", "b"]}, "account"),
    ],
)
def test_an_impossible_filter_value_is_refused(viewer: Call, query: Any, field: str) -> None:
    answer = viewer("/orders", **query)

    assert answer.status_code == 400
    assert answer.json()["code"] == "INVALID"
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("name", ["%00", "a%00b", "%FF", "9" * 30, "-1"])
@pytest.mark.parametrize("path", sorted(VIEWS))
def test_a_name_nothing_can_have_is_not_found(viewer: Call, path: str, name: str) -> None:
    assert viewer(f"/{path}/{name}").status_code == 404


@pytest.mark.parametrize(
    "path", ["/api", "/api/", "/api/v1", "/api/v1/", "/api/v2/x", "/api/v1/x/"]
)
@pytest.mark.parametrize("method", ["get", "post", "delete"])
def test_an_unknown_path_is_answered_in_json_and_never_redirected(
    client: Client, path: str, method: str
) -> None:
    answer = getattr(client, method)(path)

    assert answer.status_code == 404
    assert answer.json() == {"code": "NOT_FOUND", "detail": "there is no such path"}


@pytest.mark.parametrize("method", ["put", "patch", "delete", "options"])
def test_a_method_nobody_offers(client: Client, method: str) -> None:
    headers = bearer(client, UserFactory.create(is_superuser=True))

    answer = getattr(client, method)(f"{API}/orders", headers=headers)

    assert answer.status_code == 405
    assert answer.json()["code"] == "METHOD_NOT_ALLOWED"
    assert answer["Allow"] == "GET, HEAD, POST"


def test_a_browser_that_wants_html_gets_json(client: Client, viewer: Call) -> None:
    answer = client.get(f"{API}/orders", headers={"Accept": "text/html"})

    assert answer.status_code == 401
    assert answer["Content-Type"] == "application/json"


def test_a_session_reads_and_needs_the_csrf_token_to_write() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(
        permit(UserFactory.create(), "view_order", "add_order"),
        backend="django.contrib.auth.backends.ModelBackend",
    )

    assert client.get(f"{API}/orders").status_code == 200
    refused = client.post(f"{API}/orders", "{}", content_type="application/json")
    assert refused.status_code == 403
    assert refused.json()["code"] == "PERMISSION_DENIED"
    assert "CSRF" in refused.json()["detail"]


def test_the_limits_scope_is_shown(viewer: Call, everything: dict[str, Any]) -> None:
    rows = viewer("/limits", rule="max_order_value").json()["results"]

    assert [(row["value"], row["account"], row["strategy"], row["mode"]) for row in rows] == [
        ("1000000", None, "", "enforce")
    ]


def test_the_account_shows_balances_and_venue(viewer: Call, everything: dict[str, Any]) -> None:
    account = viewer("/accounts/desk").json()

    assert account["venue"] == "paper"
    assert account["balances"] == {}
    assert "options" not in account


def test_the_webhook_never_names_the_account_itself(viewer: Call) -> None:
    """``account`` in an alert is the operators' own field."""
    from execution.formats import fks

    alert = fks.parse({"symbol": "BTC/USDT", "action": "buy", "account": "desk"})

    assert alert.account == ""
    assert json.loads(json.dumps(alert.to_json()))["extras"] == {"account": "desk"}
