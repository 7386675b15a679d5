"""``generate_traffic``: a mix whose answers are known beforehand, and to whom it is not sent."""

from __future__ import annotations

import io
import json
from collections import Counter
from itertools import islice
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from brokers.types import Environment
from execution import traffic
from execution.models import QuarantinedBody, Signal
from tests.factories import AccountFactory, RouteFactory, webhook


def generate(*arguments: str) -> dict[str, Any]:
    out = io.StringIO()
    call_command("generate_traffic", *arguments, stdout=out)
    figures: dict[str, Any] = json.loads(out.getvalue())
    return figures


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("new_process", "nudged")
@pytest.mark.parametrize("auth", ["token", "hmac", "standard"])
def test_what_was_sent_came_back_and_is_stored(
    auth: str, live_server: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy, secret = webhook(auth=auth)
    options = ("--token", secret) if auth == "token" else ()

    found = generate(
        strategy.slug, "--webhooks", "60", "--concurrent", "3", "--url", str(live_server), *options
    )

    sent = Counter(found["sent"])
    assert found["deliveries"] == sum(sent.values()) == 60
    assert set(sent) == set(traffic.SHARES)
    assert found["unexpected"] == found["accepted_and_not_stored"] == 0
    assert found["answers"]["400"] == sent["invalid"] == QuarantinedBody.objects.count()
    stored = Signal.objects.count()
    assert found["accepted"] == found["answers"]["202"] == stored
    assert stored + found["answers"].get("200", 0) + sent["invalid"] == 60
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]


def test_a_seed_names_its_mix() -> None:
    def first(seed: int) -> list[tuple[str, str, str]]:
        mix = islice(traffic.alerts(seed, "run"), 500)
        return [(kind, alert["id"], alert["symbol"]) for kind, alert in mix]

    assert first(7) == first(7) != first(8)
    kinds = Counter(kind for kind, _, _ in first(7))
    for kind, share in traffic.SHARES.items():
        assert kinds[kind] / 500 == pytest.approx(share, abs=0.06)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("new_process", "nudged")
def test_time_and_rate_are_kept(live_server: object) -> None:
    strategy, _ = webhook(auth="hmac")
    found = generate(strategy.slug, "--duration", "1", "--rate", "20", "--url", str(live_server))

    assert 10 <= found["deliveries"] <= 20
    assert found["seconds"] < 5


@pytest.mark.django_db
class TestRefusals:
    @pytest.mark.parametrize(
        "url", ["http://fks.example", "https://192.0.2.7", "http://127.0.0.1.example:8000"]
    )
    def test_a_server_that_is_not_this_machine(self, url: str) -> None:
        strategy, _ = webhook(auth="hmac")
        with pytest.raises(CommandError, match="is not this machine"):
            generate(strategy.slug, "--url", url)

    @pytest.mark.parametrize("environment", [Environment.SANDBOX, Environment.LIVE])
    def test_a_strategy_that_trades_at_a_venue(self, environment: Environment) -> None:
        strategy, _ = webhook(auth="hmac")
        account = AccountFactory.create(name="real", environment=environment)
        RouteFactory.create(strategy=strategy, account=account)
        with pytest.raises(CommandError, match=r"trades at a venue \(real\)"):
            generate(strategy.slug)

    def test_what_cannot_be_signed_or_found(self) -> None:
        strategy, _ = webhook()
        with pytest.raises(CommandError, match="give --token"):
            generate(strategy.slug)
        with pytest.raises(CommandError, match="there is no strategy"):
            generate("nobody")

    def test_a_server_that_does_not_answer_is_a_failure(self) -> None:
        strategy, _ = webhook(auth="hmac")
        with pytest.raises(CommandError, match="3 unexpected answers"):
            generate(strategy.slug, "--webhooks", "3", "--url", "http://127.0.0.1:9")
