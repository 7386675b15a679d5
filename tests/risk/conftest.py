from __future__ import annotations

import pytest

from brokers.models import Account


@pytest.fixture
def account(db) -> Account:
    return Account.objects.create(name="desk", broker="paper")
