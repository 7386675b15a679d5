"""A small storm; docs/brokers/bridge.md says what the large one has shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.brokers.bridge.chaos import VENUES, storm


@pytest.mark.alone
@pytest.mark.timeout(240)
@pytest.mark.parametrize("driver", VENUES)
def test_no_order_is_lost_or_doubled_whichever_end_dies(tmp_path: Path, driver: str) -> None:
    orders = 120 if driver == "nt8" else 300
    verdict = storm(tmp_path, driver, orders, calm=0.7, seed=20261121, seconds=200)
    ends = (verdict.lost, verdict.doubled, verdict.ghosts, verdict.unfinished)
    assert ends == (0, 0, 0, 0), verdict
    assert verdict.accepted + verdict.absent + verdict.operators == orders
    assert driver == "nt8" or verdict.operators == 0
    assert verdict.agent_kills > 0
    assert verdict.worker_kills > 0
    assert verdict.faults > 0
