"""A session of the API proves its second factor anew for what loosens something, as in the admin."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from brokers.models import Account
from execution import api, nudge, tasks
from execution.models import Order
from execution.states import OrderState
from execution.token_keys import AccessToken
from risk import breakers, switch
from risk.models import TradingState
from tests.factories import AccountFactory, OrderFactory, UserFactory, allow_trading
from tests.fks_site.test_twofactor import PAGE, clock, code_of, enrol, olivia

__all__ = ["clock", "olivia"]

pytestmark = pytest.mark.django_db

API = "/api/v1"
BUY = {"account": "desk", "symbol": "BTC/USDT", "side": "buy", "quantity": "0.01"}
CLOSE = {"account": "desk", "symbol": "BTC/USDT", "side": "sell", "reduce_only": True}
FREE = {
    ("orders", "cancel"),
    ("orders", "reject"),
    ("breakers", "trip"),
    ("proposals", "reject"),
}
"""What only cancels or stops."""
BY_BODY = {("orders", "create"), ("trading-state", "create")}
"""What asks or not by what is wanted: below."""


@pytest.fixture
def desk() -> Account:
    allow_trading()
    return AccountFactory.create(name="desk")


@pytest.fixture
def stale(olivia: User, clock: Any) -> Client:
    """A session that proved its second factor more than ten minutes ago."""
    enrol(olivia, clock)
    client = Client()
    client.force_login(olivia)
    client.post(PAGE, {"code": code_of(olivia)})
    clock.shift(timedelta(minutes=10, seconds=1))
    return client


def post(client: Client, path: str, body: Any, **headers: str) -> Any:
    return client.post(f"{API}/{path}", body, content_type="application/json", headers=headers)


def is_refused(answer: Any) -> bool:
    return bool(answer.status_code == 403 and answer.json()["code"] == "SECOND_FACTOR_STALE")


def set_to(**body: str) -> dict[str, str]:
    return {"reason": "a drill", **body}


def test_no_action_is_forgotten(stale: Client) -> None:
    """Every POST there is asks first, even for a row nobody has, but for those named above."""
    asking, silent = set(), set()
    for name, view in api.VIEWS.items():
        routes = {"create": name} if hasattr(view, "create") else {}
        for extra in view.get_extra_actions():
            assert set(extra.mapping) == {"post"}
            routes[extra.url_path] = f"{name}/0/{extra.url_path}"
        for action, path in routes.items():
            answer = post(stale, path, {})
            (asking if is_refused(answer) else silent).add((name, action))
    assert silent == FREE | BY_BODY
    assert asking == {
        ("orders", "amend"),
        ("orders", "approve"),
        ("breakers", "reset"),
        ("proposals", "approve"),
    }


def test_it_says_what_to_do(stale: Client, olivia: User, desk: Account) -> None:
    switch.change(TradingState.State.HALTED, reason="a drill")
    answer = post(stale, "trading-state", set_to(mode="resume"))
    assert (answer.status_code, answer.json()) == (
        403,
        {
            "code": "SECOND_FACTOR_STALE",
            "detail": "this takes a one-time code of the last ten minutes: enter one at "
            "/admin/second-factor/, then send it again",
        },
    )
    assert TradingState.objects.get().state == "halted"
    stale.post(PAGE, {"code": code_of(olivia)})
    assert post(stale, "trading-state", set_to(mode="resume")).status_code == 200
    assert TradingState.objects.get().state == "active"


@pytest.mark.parametrize("mode", ["halt", "reduce_only", "cancel_all", "flatten"])
def test_what_stops_trading_never_asks(stale: Client, desk: Account, mode: str) -> None:
    assert post(stale, "trading-state", set_to(mode=mode)).status_code == 200


@pytest.mark.parametrize("body", [{"mode": "reduce_only"}, {"state": "reducing"}])
def test_less_of_a_halt_is_a_release(stale: Client, desk: Account, body: dict[str, str]) -> None:
    on_account = {"scope": "account", "key": "desk"}
    post(stale, "trading-state", set_to(mode="halt", **on_account))
    assert is_refused(post(stale, "trading-state", set_to(**body, **on_account)))
    assert TradingState.objects.get(key="desk").state == "halted"


def test_an_order_asks_unless_it_only_reduces(
    stale: Client, desk: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nudge, "nudge_signal", tasks.process_signal)
    assert is_refused(post(stale, "orders", BUY))
    assert post(stale, "orders", CLOSE).json()["code"] == "NOTHING_TO_CLOSE"
    assert not Order.objects.exclude(state=OrderState.DENIED).exists()


def test_a_cancel_and_a_trip_never_ask(stale: Client, desk: Account) -> None:
    order = OrderFactory.create(account=desk)
    breakers.of_account(desk.pk)
    assert post(stale, f"orders/{order.pk}/cancel", {}).status_code == 202
    assert post(stale, "breakers/desk/trip", {"reason": "an outage"}).status_code == 200
    assert is_refused(post(stale, "breakers/desk/reset", {"reason": "it is over"}))


def test_a_token_is_proof_enough(stale: Client, olivia: User, desk: Account) -> None:
    """Also beside the cookie of a session: it is the token that counts."""
    switch.change(TradingState.State.HALTED, reason="a drill")
    token = f"Bearer {AccessToken.for_user(olivia)}"
    answer = post(stale, "trading-state", set_to(mode="resume"), authorization=token)
    assert answer.status_code == 200


def test_whoever_has_no_second_factor_is_not_asked(desk: Account) -> None:
    client = Client()
    client.force_login(UserFactory.create(is_superuser=True))
    switch.change(TradingState.State.HALTED, reason="a drill")
    assert post(client, "trading-state", set_to(mode="resume")).status_code == 200
