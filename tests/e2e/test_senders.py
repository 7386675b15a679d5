"""Senders in masses, in small: ``python -m benchmarks.senders`` does it with a thousand alerts."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import senders
from tests.e2e.product import running_product

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def test_one_alert_is_one_order_whoever_delivers_it_and_however_often(tmp_path: Path) -> None:
    with running_product(tmp_path / "var") as product:
        path = senders.strategy(product)

        resent = senders.resent(product, path, alerts=30, connections=2)
        identical = senders.again(product, path)

    assert len(resent) == 4 * 30
    assert {answer.status for answer in resent} == {200, 202}
    assert len(identical) == 20
