"""What Django takes from nobody: machines are told so in JSON, people on a page."""

from __future__ import annotations

import pytest
from django.test import Client

from tests.factories import UserFactory

pytestmark = pytest.mark.django_db
ELSEWHERE = {"HTTP_HOST": "elsewhere.example"}


@pytest.mark.parametrize("path", ["/api/v1/orders", "/api/token", "/api/nowhere"])
def test_a_host_nobody_serves_is_refused_in_json(client: Client, path: str) -> None:
    answer = client.get(path, **ELSEWHERE)

    assert answer.status_code == 400
    assert answer.json() == {
        "code": "HOST_NOT_ALLOWED",
        "detail": "no host of this name is served here (ALLOWED_HOSTS)",
    }


def test_people_see_a_page(client: Client) -> None:
    answer = client.get("/admin/", **ELSEWHERE)

    assert answer.status_code == 400
    assert answer["Content-Type"].startswith("text/html")


def test_a_thousand_parameters_are_too_many(client: Client) -> None:
    client.force_login(UserFactory.create(is_superuser=True, is_staff=True))
    query = "&".join(f"a{number}=1" for number in range(1001))

    answer = client.get(f"/api/v1/orders?{query}")

    assert answer.status_code == 400
    assert answer.json() == {
        "code": "BAD_REQUEST",
        "detail": "the request is not one this server takes",
    }
