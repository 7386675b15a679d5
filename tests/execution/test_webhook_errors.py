"""Wrong methods, wrong paths, and a database that does not answer."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import InterfaceError, OperationalError, connection
from django.test import Client

from execution import intake, metrics, webhooks
from execution.models import Signal
from tests.execution.posting import body_of, post, stored
from tests.factories import webhook
from tests.threads import together

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("new_process", "nudged")]


class TestMethodsAndPaths:
    def test_what_is_no_post_is_counted(self, client: Client) -> None:
        counter = metrics.webhook_requests.labels("method_not_allowed")
        before = counter._value.get()

        client.get("/webhook/demo")

        assert counter._value.get() == before + 1

    @pytest.mark.parametrize(
        "method", ["get", "head", "options", "put", "patch", "delete", "trace"]
    )
    def test_only_post(self, client: Client, method: str) -> None:
        response = getattr(client, method)("/webhook/demo")

        assert response.status_code == 405
        assert response["Allow"] == "POST"
        assert response["Content-Type"] == "application/json"
        if method != "head":
            detail = f'Method "{method.upper()}" not allowed.'
            assert response.json() == {"code": "METHOD_NOT_ALLOWED", "detail": detail}

    @pytest.mark.parametrize(
        ("method", "status", "extra"),
        [("POST", 202, {}), ("POST", 200, {"HTTP_PREFER": "wait=1"}), ("GET", 405, {})],
    )
    def test_the_name_of_the_host_does_not_matter(
        self, client: Client, worked_off: None, method: str, status: int, extra: dict[str, str]
    ) -> None:
        strategy, token = webhook()
        path, host = f"/webhook/{strategy.slug}", "elsewhere.example"

        response = client.generic(method, path, body_of(secret=token), HTTP_HOST=host, **extra)

        assert response.status_code == status
        assert response["Content-Type"] == "application/json"

    @pytest.mark.parametrize("method", ["get", "post"])
    @pytest.mark.parametrize(
        "path", ["/webhook", "/webhook/", "/webhook//", "/webhooks/demo", "/healthy"]
    )
    def test_paths_that_lead_nowhere(self, client: Client, method: str, path: str) -> None:
        response = getattr(client, method)(path)

        assert response.status_code == 404
        assert response.json() == {"code": "NOT_FOUND", "detail": "no such path"}
        assert response["Content-Length"] == str(len(response.content))

    @pytest.mark.parametrize("path", ["/webhook/a/b/c", "/webhook/a//", "/webhook/a/b/c/d/"])
    def test_a_token_may_have_slashes_and_is_wrong_like_any_other(
        self, client: Client, path: str
    ) -> None:
        assert client.get(path).status_code == 405
        assert client.post(path).status_code == 401

    @pytest.mark.parametrize(
        "path",
        [
            f"/webhook/{'x' * 64}",
            f"/webhook/demo/{'x' * 201}",
            f"/webhook/demo/{'x' * 5000}/",
            "/webhook/demo/a%0Ab",
            "/webhook/demo%0A",
        ],
        ids=["slug", "token", "long token", "line break", "line break behind the slug"],
    )
    def test_no_wrong_credential_is_answered_in_another_way(
        self, client: Client, path: str
    ) -> None:
        response = client.post(path)

        assert response.status_code == 401
        assert response.json() == {"code": "UNAUTHENTICATED", "detail": "authentication failed"}


class TestNotStored:
    @pytest.mark.parametrize("error", [OperationalError, InterfaceError])
    @pytest.mark.parametrize("place", [(intake, "accept_all"), (webhooks, "config_of")])
    def test_503_tells_the_sender_to_try_again(
        self,
        monkeypatch: pytest.MonkeyPatch,
        nudged: list[str],
        place: tuple[Any, str],
        error: type[Exception],
    ) -> None:
        def fail(*_: object) -> None:
            raise error("server closed the connection: password=hunter2")

        strategy, token = webhook()
        with monkeypatch.context() as patch:
            patch.setattr(*place, fail)
            response = post(strategy.slug, body_of(secret=token))

        assert response.status_code == 503
        assert response.json() == {
            "code": "NOT_STORED",
            "detail": "the alert could not be stored; send it again",
        }
        assert nudged == []
        assert stored() == (0, 0, 0)
        assert post(strategy.slug, body_of(secret=token)).status_code == 202

    def test_a_quarantine_that_fails_is_503_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise OperationalError("disk full")

        strategy, token = webhook()
        monkeypatch.setattr(intake, "quarantine", fail)

        assert post(f"{strategy.slug}/{token}", b"{").status_code == 503

    def test_a_real_refusal_of_the_database(self) -> None:
        strategy, token = webhook()
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL default_transaction_read_only = on")
            cursor.execute("SAVEPOINT before")
            cursor.execute("SET LOCAL transaction_read_only = on")
            response = post(strategy.slug, body_of(secret=token))
            cursor.execute("ROLLBACK TO SAVEPOINT before")

        assert response.status_code == 503
        assert stored() == (0, 0, 0)

    def test_an_unforeseen_error_shows_nothing(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_: object) -> None:
            raise ZeroDivisionError("inside")

        strategy, token = webhook()
        monkeypatch.setattr(intake, "accept_all", fail)

        response = post(strategy.slug, body_of(secret=token))

        assert response.status_code == 500
        assert response.json() == {"code": "INTERNAL_ERROR", "detail": "internal error"}
        assert "ZeroDivisionError" in caplog.text


@pytest.mark.django_db(transaction=True)
class TestDroppedConnection:
    def test_a_connection_the_server_dropped_costs_nobody_an_alert(self, nudged: list[str]) -> None:
        strategy, token = webhook()
        post(strategy.slug, body_of(secret=token, id="warm"))
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (pid,) = cursor.fetchone()

        def drop() -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

        together(drop)
        response = post(strategy.slug, body_of(secret=token, id="next"))

        assert response.status_code == 202
        assert stored() == (2, 2, 0)
        assert len(nudged) == 2

    @pytest.mark.parametrize("window", [60, 0])
    def test_an_answer_lost_after_the_commit_is_no_second_alert(
        self, nudged: list[str], monkeypatch: pytest.MonkeyPatch, window: int
    ) -> None:
        strategy, token = webhook(dedupe_window=window)
        accept_all = intake.accept_all
        failures = iter([OperationalError("server closed the connection unexpectedly")])

        def lose_the_answer(*arguments: Any) -> list[intake.Accepted]:
            accepted = accept_all(*arguments)
            for failure in failures:
                raise failure
            return accepted

        monkeypatch.setattr(intake, "accept_all", lose_the_answer)
        response = post(strategy.slug, body_of(secret=token))

        assert response.status_code == 202
        assert stored() == (1, 1, 0)
        assert nudged == [response.json()["signal_id"]] == [str(Signal.objects.get().pk)]
