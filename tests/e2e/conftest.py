"""One installation for the tests of a file that leave it running, and what drives a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from execution.models import Order
from tests.e2e import rows
from tests.e2e.browser import chromium, complaints, open_page, page_for, watch
from tests.e2e.product import Product, running_product
from tests.venues.client import RunningVenue, running_venue

__all__ = ["chromium", "complaints", "open_page", "page_for", "watch"]

_ASK_NO_MORE = """
from brokers.models import Account
answer = Account.objects.exclude(name="paper").update(is_active=False)
"""


@pytest.fixture(scope="module")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with running_product(tmp_path_factory.mktemp("product") / "var") as product:
        yield product


@pytest.fixture
def venue() -> Iterator[RunningVenue]:
    with running_venue() as running:
        yield running


@pytest.fixture
def product(_running: Product) -> Iterator[Product]:
    """Rows of other tests may be there: a test names its account, and looks at that one's rows.

    Afterwards its account is asked no more. Ask for ``venue`` before this: it then ends later.
    """
    yield _running
    _running.within(_ASK_NO_MORE)


@pytest.fixture
def order() -> Order:
    return rows.hostile_order()
