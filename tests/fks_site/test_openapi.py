"""The OpenAPI schema: it is the one in the documentation, and the API does what it says."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import yaml
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.test import Client
from hypothesis import HealthCheck, settings
from rest_framework_simplejwt.tokens import AccessToken
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import negative_data_rejection

from execution import nudge, tasks
from execution.models import QuarantinedBody, Signal, Strategy
from fks_site.wsgi import application
from risk import breakers
from tests.execution import posting
from tests.factories import AccountFactory, OrderFactory, allow_trading

pytestmark = pytest.mark.django_db

DOCUMENTED = Path(__file__).parents[2] / "docs" / "openapi.yaml"
CONFIG = {
    "generation": {"max-examples": 8, "deterministic": True, "allow-x00": False},
    "checks": {
        # A denied order and an unknown account are 422: read and understood, and refused.
        "positive_data_acceptance": {"expected-statuses": ["2xx", 401, 403, 404, 409, 422, 503]},
        # No worker runs here, and /ready says so.
        "not_a_server_error": {"expected-statuses": ["2xx", "4xx", 503]},
    },
}
DOOR = {
    "generation": {"max-examples": 20, "deterministic": True, "allow-x00": False},
    "checks": {
        # What is well formed may still be no alert: a limit order without a price.
        "positive_data_acceptance": {"expected-statuses": ["2xx", 400]},
        "not_a_server_error": {"expected-statuses": ["2xx", "4xx"]},
    },
}


def test_the_documented_schema_is_the_generated_one() -> None:
    generated = StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=generated)

    documented = DOCUMENTED.read_text(encoding="utf-8")

    assert yaml.safe_load(generated.getvalue()) == yaml.safe_load(documented), (
        "run: python manage.py spectacular --file docs/openapi.yaml"
    )


@pytest.mark.parametrize("path", ["/api/schema", "/api/schema/"])
def test_the_schema_is_served(client: Client, path: str) -> None:
    answer = client.get(path, headers={"Accept": "application/vnd.oai.openapi+json"})

    assert answer.status_code == 200
    assert answer.json()["openapi"] == "3.1.0"
    assert "/api/v1/orders/{id}/cancel" in answer.json()["paths"]


@pytest.mark.parametrize("path", ["/api/docs", "/api/docs/"])
def test_the_page_runs_under_the_content_security_policy(client: Client, path: str) -> None:
    page = client.get(path)
    script = client.get(path, {"script": ""})

    assert page.status_code == script.status_code == 200
    text = page.content.decode()
    assert "<script>" not in text
    assert 'src="/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"' in text
    assert "http" not in text.replace("http-equiv", "")
    assert "script-src 'self' 'unsafe-eval'" in page["Content-Security-Policy"]
    assert script["Content-Type"].startswith("application/javascript")


@pytest.fixture
def one_transaction() -> Iterator[None]:
    """Requests must not close the connection that holds the test's transaction."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def token(one_transaction: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a user who may do everything, in an installation with one account and one order."""
    monkeypatch.setattr(nudge, "nudge_signal", tasks.process_signal)
    posting.forget()
    allow_trading()
    desk = AccountFactory.create(name="desk")
    breakers.of_account(desk.pk)
    OrderFactory.create(account=desk)
    return str(AccessToken.for_user(User.objects.create(is_staff=True, is_superuser=True)))


schema = schemathesis.openapi.from_path(
    DOCUMENTED, config=SchemathesisConfig.from_dict(CONFIG)
).exclude(path_regex="^/webhook/")
schema.app = application
door = schemathesis.openapi.from_path(
    DOCUMENTED, config=SchemathesisConfig.from_dict(DOOR)
).include(path_regex="^/webhook/")
door.app = application


@schema.parametrize()
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_the_api_does_what_its_schema_says(case: Any, token: str) -> None:
    case.call_and_validate(headers={"Authorization": f"Bearer {token}"})


@door.parametrize()
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_the_door_does_what_its_schema_says(case: Any, token: str) -> None:
    """Whoever proves itself is answered as documented, whatever the body is."""
    strategy, _ = Strategy.objects.get_or_create(slug="door", auth=Strategy.Auth.JWT)
    case.path_parameters |= {"strategy": strategy.slug}

    # An exit is read whatever stands in what only an entry needs.
    lenient = [negative_data_rejection] if _ends_something(case.body) else []
    case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, excluded_checks=lenient)


def _ends_something(body: object) -> bool:
    if not isinstance(body, dict):
        return False
    return (
        body.get("action") in ("close", "cancel")
        or body.get("market_position") == "flat"
        or body.get("quantity_type") == "percent_of_position"
        or body.get("reduce_only") not in (None, False)
    )


@door.parametrize()
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_the_door_is_shut_to_whoever_proves_nothing(case: Any, token: str) -> None:
    answer = case.call()

    assert answer.status_code in (401, 404, 405, 413, 429)
    assert not Signal.objects.exists()
    assert not QuarantinedBody.objects.exists()
