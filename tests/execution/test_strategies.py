"""Making strategies: secrets shown once, options checked, nothing left behind by a failure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from execution.authentication import Delivery, live, verify
from execution.models import Route, Strategy, WebhookSecret
from execution.strategies import OPTIONS, Created, StrategyError, create_strategy
from risk.models import AuditEvent, IPAllowlist
from tests.execution.posting import signature_of, tables_with
from tests.factories import AccountFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _world() -> None:
    IPAllowlist.objects.create(name="tradingview")
    IPAllowlist.objects.create(name="office")
    AccountFactory.create(name="paper")
    AccountFactory.create(name="second")


def make(slug: str = "trend", /, **changes: Any) -> Created:
    return create_strategy(slug, **({"accounts": ["paper"]} | changes))


def test_a_strategy_with_its_defaults() -> None:
    created = make()

    strategy = Strategy.objects.get(slug="trend")
    assert created.strategy == strategy
    assert (strategy.auth, strategy.format, strategy.is_enabled) == ("token", "fks", True)
    assert (strategy.max_age, strategy.dedupe_window) == (300, 60)
    assert strategy.allowlist is not None
    assert strategy.allowlist.name == "tradingview"
    assert (strategy.min_confidence, strategy.min_reward_risk) == (None, None)
    route = Route.objects.get()
    assert (route.account.name, route.sizing, route.quantity) == ("paper", "fixed_quantity", None)


def test_the_strategy_of_orders_by_hand_takes_no_alerts() -> None:
    with pytest.raises(StrategyError, match="the strategy of orders by hand"):
        make("manual")


def test_a_least_of_zero_asks_for_nothing() -> None:
    strategy = make(options={"min_confidence": 0, "min_reward_risk": "0"}).strategy

    assert (strategy.min_confidence, strategy.min_reward_risk) == (None, None)


def test_how_its_entries_are_sent_and_its_stops_follow() -> None:
    told = {
        "execution": "twap",
        "slices": 12,
        "slicing_seconds": 3600,
        "trail_percent": "2",
        "trail_step": "0.5",
        "break_even_percent": "1.5",
    }
    made = make(options=told).strategy
    strategy = Strategy.objects.get(pk=made.pk)
    assert (strategy.execution, strategy.slices, strategy.slicing_seconds) == ("twap", 12, 3600)
    assert (strategy.trail_percent, strategy.trail_step) == (Decimal(2), Decimal("0.5"))
    assert strategy.break_even_percent == Decimal("1.5")


@pytest.mark.parametrize("told", [{"execution": "vwap"}, {"slices": 1}, {"ladder_percent": 0}])
def test_an_execution_there_is_not_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(StrategyError):
        make(options=told)


def test_what_is_missing_is_refused_unless_it_may_be() -> None:
    strategy = Strategy()

    assert (strategy.requires_confidence, strategy.requires_reward_risk) == (True, True)
    assert not strategy.asks_confidence
    strategy.min_confidence = Decimal("0.6")
    assert strategy.asks_confidence
    strategy.requires_confidence = False
    assert not strategy.asks_confidence


def test_options_go_to_the_strategy_and_every_route() -> None:
    options = {
        "quantity": "0.5",
        "risk_percent": "0.01",
        "atr_multiple": 2,
        "max_age": "60",
        "dedupe_window": 0,
        "min_confidence": "0.7",
        "min_reward_risk": "1.5",
        "allowlist": "office",
    }

    strategy = make(accounts=["paper", "second"], sizing="risk", options=options).strategy

    assert (strategy.max_age, strategy.dedupe_window) == (60, 0)
    assert (strategy.min_confidence, strategy.min_reward_risk) == (Decimal("0.7"), Decimal("1.5"))
    assert (strategy.requires_confidence, strategy.requires_reward_risk) == (True, True)
    assert strategy.allowlist == IPAllowlist.objects.get(name="office")
    routes = Route.objects.filter(strategy=strategy)
    assert {route.account.name for route in routes} == {"paper", "second"}
    for route in routes:
        assert (route.sizing, route.quantity, route.percent, route.atr_multiple) == (
            "risk",
            Decimal("0.5"),
            Decimal("0.01"),
            Decimal(2),
        )


def test_the_token_opens_the_webhook_and_only_its_digest_is_stored() -> None:
    created = make()

    (secret,) = (live(row) for row in WebhookSecret.objects.all())
    assert created.secret_name == "token"
    assert verify(Delivery(b"", created.secret, ""), {}, (secret,)) == secret
    assert tables_with(created.secret) == []


def test_the_signing_key_is_stored_encrypted() -> None:
    created = make(auth="hmac")

    (secret,) = (live(row) for row in WebhookSecret.objects.all())
    assert created.secret_name == "hmac_secret"
    assert created.strategy.allowlist is None
    signed = Delivery(b"{}", "", signature_of(b"{}", created.secret))
    assert verify(signed, {}, (secret,)) == secret
    assert tables_with(created.secret) == []


def test_a_secret_of_the_operators_own() -> None:
    assert make(secret="given by the operator").secret == "given by the operator"


def test_making_a_strategy_is_audited() -> None:
    make()

    event = AuditEvent.objects.get(kind="strategy.created")
    assert event.subject == "strategy trend"
    assert event.after["slug"] == "trend"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"options": {"leverage": "5"}}, "there is no option 'leverage'"),
        ({"options": {"quantity": "1_000"}}, "the option quantity must be a number"),
        ({"options": {"quantity": "NaN"}}, "the option quantity must be a number"),
        ({"options": {"quantity": True}}, "the option quantity must be a number"),
        ({"options": {"quantity": None}}, "the option quantity must be a number"),
        ({"options": {"quantity": ["1"]}}, "the option quantity must be a number"),
        ({"options": {"quantity": "-1"}}, "the option quantity must not be negative"),
        ({"options": {"quantity": "0"}}, "route_quantity_positive"),
        ({"options": {"max_age": "-1"}}, "the option max_age must not be negative"),
        ({"options": {"max_age": "9" * 12}}, "less than or equal to 2147483647"),
        ({"options": {"min_confidence": "60"}}, "min_confidence is a fraction, at most 1"),
        ({"options": {"risk_percent": "2"}}, "risk_percent is a fraction, at most 1"),
        ({"sizing": "risk", "options": {"percent": "2"}}, "A fraction above zero, at most 1"),
        ({"sizing": "atr", "options": {"percent": "2"}}, "A fraction above zero, at most 1"),
        ({"sizing": "fixed_percent", "options": {"percent": "0"}}, "A fraction above zero: 0.02"),
        ({"sizing": "atr", "options": {"atr_multiple": "0"}}, "Above zero."),
        ({"options": {"allowlist": "nobody"}}, "there is no allowlist 'nobody'; known: "),
        ({"accounts": ["gone"]}, "there is no account 'gone'; make it with add_account"),
        ({"accounts": ["paper", "gone"]}, "there is no account 'gone'; make it with add_account"),
        ({"accounts": ["paper", "paper"]}, "already exists"),
        ({"auth": "none"}, "'none' is not a valid choice"),
        ({"format": "xml"}, "'xml' is not a valid choice"),
        ({"sizing": "all in"}, "'all in' is not a valid choice"),
    ],
)
def test_a_failure_leaves_nothing(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(StrategyError) as caught:
        make(**changes)

    assert complaint in str(caught.value)
    assert not Strategy.objects.exists()
    assert not Route.objects.exists()
    assert not WebhookSecret.objects.exists()
    assert not AuditEvent.objects.filter(kind="strategy.created").exists()


@pytest.mark.parametrize("slug", ["", "a b", "a/b", "ü", "x" * 64, "a\x00b"])
def test_names_that_no_path_can_hold(slug: str) -> None:
    with pytest.raises(StrategyError):
        make(slug)

    assert not Strategy.objects.exists()


def test_a_name_is_given_once() -> None:
    make()

    with pytest.raises(StrategyError, match="already exists"):
        make()


def test_the_documented_options_are_the_accepted_ones() -> None:
    values: dict[str, Any] = dict.fromkeys(OPTIONS, "0.5")
    values |= {"max_age": "5", "dedupe_window": "5", "allows_delayed": True, "format_options": {}}
    values |= {"senders": "", "expects_market": "XNYS", "expects_minutes": "60"}
    values |= {"most_alerts": "5", "most_alerts_window": "60"}
    values |= {"needs_approval": True, "approval_seconds": "60", "exits_need_approval": True}
    values |= {"exit_execution": "twap", "allowed_executions": "whole, iceberg"}
    values |= {"execution": "ladder", "slices": "4", "slicing_seconds": "60", "route_group": "best"}
    values.pop("trail_distance")  # a stop trails by one of the two

    strategy = make(options=values | {"allowlist": "none", "on_naked": "close"}).strategy

    assert strategy.allowlist is None
    assert strategy.on_naked == Strategy.OnNaked.CLOSE
    assert (strategy.needs_approval, strategy.approval_seconds) == (True, 60)
    assert strategy.exits_need_approval


def test_a_mapping_comes_with_the_strategy() -> None:
    fields = {"symbol": {"path": "pair"}, "action": {"path": "side"}, "quantity": {"constant": 2}}
    options = {"format_options": {"fields": fields}, "max_drift": "0.005"}

    strategy = make(format="mapping", options=options).strategy

    strategy.refresh_from_db()
    assert strategy.format_options == {"fields": fields}
    assert strategy.max_drift == Decimal("0.005")


@pytest.mark.parametrize(
    ("format", "options", "sentence"),
    [
        ("mapping", {}, '"fields" is an object'),
        ("mapping", {"fields": {"symbol": {"path": "a"}}}, "action must be mapped"),
        ("pineconnector", {"volume": "lots"}, "volume is one of base"),
        ("pineconnector", {"targets": "percent"}, "targets is one of price"),
        ("pineconnector", {"lot": "none"}, "lot is how many units a lot has"),
        ("pineconnector", {"lot": 0}, "lot is how many units a lot has"),
        ("pineconnector", {"lot": True}, "lot is how many units a lot has"),
        ("pineconnector", {"lot": ["100"]}, "lot is how many units a lot has"),
        ("fks", {"volume": "base"}, "the format fks has no options"),
    ],
)
def test_format_options_that_make_no_sense(
    format: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(StrategyError, match=sentence):
        make(format=format, options={"format_options": options})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("expects_minutes", 0.5),
        ("most_alerts", 0.5),
        ("max_age", "0.9"),
        ("slices", 2.5),
        ("dedupe_window", "59.9"),
    ],
)
def test_a_part_of_a_whole_number_is_refused_and_not_cut_off(name: str, value: Any) -> None:
    with pytest.raises(StrategyError, match=f"the option {name} must be a whole number"):
        make(options={name: value})
    assert make(options={"expects_minutes": "5.0"}).strategy.expects_minutes == 5


@pytest.mark.parametrize("auth", ["token", "hmac"])
def test_an_allowlist_without_a_name_lets_nobody_in(auth: str) -> None:
    with pytest.raises(StrategyError, match="there is no allowlist ''"):
        make(auth=auth, options={"allowlist": ""})


def test_whether_delayed_data_are_traded_is_true_or_false() -> None:
    with pytest.raises(StrategyError, match="allows_delayed is true or false"):
        make(options={"allows_delayed": "yes"})
