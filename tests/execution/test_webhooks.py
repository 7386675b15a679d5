"""The webhook's answers to those who may post, and what each leaves in the database."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from brokers.decimals import decimal_text
from execution import metrics, waiting
from execution.models import Order, Signal, Strategy, WebhookSecret
from execution.states import SignalState
from risk import switch
from risk.models import TradingState
from tests.execution.posting import ALERT, body_of, post, stored
from tests.factories import allow_trading, webhook

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("new_process", "nudged")]

TRADINGVIEW = "52.89.214.238"


class TestStored:
    def test_an_alert_is_stored_before_it_is_answered(self, nudged: list[str]) -> None:
        strategy, token = webhook()
        body = body_of(secret=token, comment="breakout")

        response = post(strategy.slug, body, REMOTE_ADDR=TRADINGVIEW)

        signal = Signal.objects.get()
        assert response.status_code == 202
        assert response.json() == {"status": "accepted", "signal_id": str(signal.pk)}
        assert nudged == [str(signal.pk)]
        assert signal.strategy == strategy
        assert (signal.state, signal.reason) == (SignalState.RECEIVED, "")
        assert (signal.auth, signal.address) == ("token", TRADINGVIEW)
        assert (signal.symbol, signal.action) == ("BTC/USDT", "buy")
        assert signal.alert == ALERT | {"comment": "breakout"}
        assert signal.body == body.decode().replace(token, "***")
        assert abs((timezone.now() - signal.received_at).total_seconds()) < 5
        assert stored() == (1, 1, 0)

    def test_the_answer_is_plain_json_with_its_length(self) -> None:
        strategy, token = webhook()

        response = post(strategy.slug, body_of(secret=token), HTTP_ACCEPT="text/html")

        assert response["Content-Type"] == "application/json"
        assert response["Content-Length"] == str(len(response.content))
        assert not response.cookies

    @pytest.mark.parametrize("path", ["{}", "{}/", "{}/{}", "{}/{}/"])
    def test_with_and_without_the_slash_and_the_token_in_the_path(self, path: str) -> None:
        strategy, token = webhook()

        response = post(path.format(strategy.slug, token), body_of(secret=token))

        assert response.status_code == 202

    @pytest.mark.parametrize(
        "content_type",
        [
            *("application/json", "text/plain", "text/plain; charset=utf-16", "nonsense", ""),
            *("application/octet-stream", "application/x-www-form-urlencoded"),
            "multipart/form-data; boundary=x",
        ],
    )
    def test_the_content_type_does_not_matter(self, content_type: str) -> None:
        strategy, token = webhook()

        response = post(strategy.slug, body_of(secret=token), content_type=content_type)

        assert response.status_code == 202

    @pytest.mark.parametrize(
        "accept", ["text/html", "image/png", "nonsense", "application/xml;q=1"]
    )
    @pytest.mark.parametrize("query", ["", "?format=xml"])
    def test_every_answer_is_json_whatever_is_asked_for(self, accept: str, query: str) -> None:
        response = post(f"nobody{query}", b"{}", HTTP_ACCEPT=accept)

        assert response.status_code == 401
        assert response.json()["code"] == "UNAUTHENTICATED"

    def test_one_statement_when_the_configuration_is_known(self, django_assert_num_queries) -> None:
        strategy, token = webhook()
        post(strategy.slug, body_of(secret=token, id="first"))

        with django_assert_num_queries(1):
            response = post(strategy.slug, body_of(secret=token, id="second"))

        assert response.status_code == 202

    def test_the_secret_that_was_used_is_noted(self) -> None:
        strategy, token = webhook()

        post(strategy.slug, body_of(secret="wrong"))
        assert WebhookSecret.objects.get().last_used_at is None
        post(strategy.slug, body_of(secret=token))
        assert WebhookSecret.objects.get().last_used_at is not None

    def test_unknown_fields_are_kept_and_never_executed(self) -> None:
        strategy, token = webhook()

        post(strategy.slug, body_of(secret=token, account="live", plot_3=1.25))

        extras = {"account": "live", "plot_3": "1.25"}
        assert Signal.objects.get().alert == ALERT | {"extras": extras}


class TestNotOurFault:
    """202: the sender cannot do anything about it; the reason is on the signal."""

    @pytest.fixture(autouse=True)
    def _worked_off(self, worked_off: None) -> None:
        pass

    def reason_of(self, strategy: Strategy, token: str, **fields: Any) -> tuple[str, str]:
        response = post(strategy.slug, body_of(secret=token, **fields))
        assert response.status_code == 202
        assert response.json()["status"] == "accepted"
        signal = Signal.objects.get()
        return signal.state, signal.reason

    def test_stale(self) -> None:
        sent = int(time.time()) - 301

        assert self.reason_of(*webhook(), timestamp=sent) == ("expired", "STALE")

    def test_from_the_future(self) -> None:
        sent = int(time.time()) + 70

        assert self.reason_of(*webhook(), timestamp=sent) == ("denied", "FROM_THE_FUTURE")

    def test_low_confidence(self) -> None:
        strategy, token = webhook(min_confidence="0.6", requires_confidence=True)

        assert self.reason_of(strategy, token, confidence=0.59) == ("denied", "LOW_CONFIDENCE")

    def test_unknown_symbol(self) -> None:
        assert self.reason_of(*webhook(), symbol="BTCUSDT.P") == ("denied", "UNKNOWN_SYMBOL")

    def test_denied_by_risk(self) -> None:
        strategy, token = webhook()
        allow_trading(max_order_value="599")

        assert self.reason_of(strategy, token) == ("denied", "MAX_ORDER_VALUE")

    def test_kill_switch(self) -> None:
        switch.change(TradingState.State.HALTED, reason="test")

        assert self.reason_of(*webhook()) == ("denied", "TRADING_HALTED")

    def test_disabled_strategy(self) -> None:
        state = self.reason_of(*webhook(is_enabled=False))

        assert state == ("denied", "STRATEGY_DISABLED")


class TestPreferWait:
    def test_the_outcome(self, worked_off: None) -> None:
        strategy, token = webhook()

        response = post(strategy.slug, body_of(secret=token), HTTP_PREFER="wait=5")

        assert response.status_code == 200
        outcome = response.json()
        (order,) = outcome.pop("orders")
        assert outcome == {
            "status": "executed",
            "signal_id": str(Signal.objects.get().pk),
            "reason": "",
            "detail": "",
        }
        assert (order["status"], order["side"], order["type"]) == ("filled", "buy", "market")
        assert (order["quantity"], order["filled_quantity"]) == ("0.01", "0.01")
        assert order["average_price"] == decimal_text(Order.objects.get().average_price)

    def test_a_denial_is_an_outcome(self, worked_off: None) -> None:
        strategy, token = webhook()
        allow_trading(max_order_value="599")

        response = post(strategy.slug, body_of(secret=token), HTTP_PREFER="respond-async, wait=5")

        assert response.status_code == 200
        assert response.json()["status"] == "denied"
        assert response.json()["reason"] == "MAX_ORDER_VALUE"

    def test_not_done_in_time(self) -> None:
        strategy, token = webhook()

        response = post(strategy.slug, body_of(secret=token), HTTP_PREFER="wait=1")

        assert response.status_code == 202
        assert response.json()["status"] == "accepted"

    def test_a_duplicate_does_not_wait(self, worked_off: None) -> None:
        strategy, token = webhook()
        body = body_of(secret=token)
        post(strategy.slug, body)

        response = post(strategy.slug, body, HTTP_PREFER="wait=5")

        assert response.json()["status"] == "duplicate"

    def test_a_stored_alert_stays_accepted_when_waiting_fails(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OperationalError("the connection is closed")

        strategy, token = webhook()
        monkeypatch.setattr(waiting, "wait_for", fail)

        response = post(strategy.slug, body_of(secret=token), HTTP_PREFER="wait=5")

        assert response.status_code == 202
        assert response.json()["signal_id"] == str(Signal.objects.get().pk)


@pytest.mark.parametrize(
    "spoiled", [{"timestamp": "{{timenow}}"}, {"id": "x" * 151}, {"id": True}], ids=str
)
def test_a_close_with_a_spoiled_time_or_name_is_taken_once(spoiled: dict[str, Any]) -> None:
    strategy, token = webhook()
    body = body_of(secret=token, action="close") + b" "
    spoilt = body_of(secret=token, action="close", **spoiled)

    answers = [post(strategy.slug, sent).json()["status"] for sent in (spoilt, spoilt, body)]

    assert answers == ["accepted", "duplicate", "accepted"]
    assert stored() == (2, 2, 0)


def test_a_computed_number_in_a_field_nobody_reads_costs_no_exit() -> None:
    strategy, token = webhook()

    response = post(strategy.slug, body_of(secret=token, action="close", slope=1e-19, volume=1e19))

    assert response.status_code == 202
    assert Signal.objects.get().alert["extras"] == {"slope": "1e-19", "volume": "1e+19"}


def test_deliveries_are_counted_by_what_became_of_them() -> None:
    strategy, token = webhook()
    body = body_of(secret=token)

    def counts() -> dict[str, float]:
        names = ("accepted", "duplicate", "invalid", "unauthenticated", "too_large")
        return {name: metrics.webhook_requests.labels(name)._value.get() for name in names}

    before = counts()
    for sent in (body, body, body_of(secret=token, action="x"), b"{}", b" " * 70_000):
        post(strategy.slug, sent)

    assert {name: value - before[name] for name, value in counts().items()} == dict.fromkeys(
        before, 1.0
    )
