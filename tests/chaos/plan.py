"""What a run does, drawn from one seed: the alerts, the fault each order meets, the kills."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from random import Random
from typing import Any

from tests.chaos.points import CELLS, FAULTS, NO_FAULT, SETTLE, STALLS, TIMEOUT, Point

BINANCE = tuple(f"b{number:02}" for number in range(1, 25))
KRAKEN = tuple(f"k{number:02}" for number in range(1, 5))
PAIR = ("b01", "k01")
"""The accounts of the one strategy whose alerts become two orders."""

QUANTITIES = {"BTC": "0.0004", "ETH": "0.008", "SOL": "0.16", "BNB": "0.04"}
PRICES = {"BTC": 60000, "ETH": 3000, "SOL": 150, "BNB": 600}
GUARDED = {
    ("b22", "BNB/USDT"): {"stop_loss": "598", "take_profit": "603"},
    ("b23", "BNB/USDT"): {"stop_loss": "598", "take_profit": [{"price": "603", "percent": "50"}]},
    ("k03", "SOL/USD"): {"stop_loss": "149.5"},
}
"""Lanes whose positions have a stop at the venue, and targets FKS watches; the market reaches both."""
GUARDED_SHARE = 0.06
"""Of the orders nothing is planned for."""
PLANNED_SHARE = 0.8
"""Of the kills; the others strike at random."""
CHANCES = 3
"""Orders that may meet the same planned kill: not each gets to its point."""
ENCORES = 60
"""Further orders for a cell, for as long as nothing has met it."""
PLANNED_BY = 0.75
"""Share of the orders by which all planned kills are due."""
CANCEL_AFTER = 6
"""Steps between an order and its cancel, in which it gets to the venue."""
FAULTY_SHARE = 0.3
"""Of the orders nothing is planned for."""


@dataclass(frozen=True, slots=True)
class Step:
    """One alert. ``fault`` is what its order meets at the venue, ``point`` where its process dies."""

    index: int
    strategy: str
    symbol: str
    body: dict[str, Any]
    fault: str = NO_FAULT
    point: Point | None = None

    @property
    def lane(self) -> tuple[str, str]:
        return self.strategy, self.symbol

    @property
    def key(self) -> str:
        """The alert's idempotency key, by which every part of the run knows the step."""
        return f"step-{self.index}"

    @property
    def makes_an_order(self) -> bool:
        return bool(self.body["action"] != "cancel")


def venue_of(account: str) -> str:
    return "kraken" if account in KRAKEN else "binance"


def account_options(exchange: str, base_url: str) -> dict[str, Any]:
    return {
        "exchange": exchange,
        "base_url": base_url,
        "submit_timeout": TIMEOUT,
        "settle_window": SETTLE,
    }


def accounts_of(strategy: str) -> tuple[str, ...]:
    return PAIR if strategy == "pair" else (strategy,)


def index_of(key: str | None) -> int | None:
    """The step with this idempotency key; ``None`` for an alert that is none of the plan's."""
    name, _, number = (key or "").partition("-")
    return int(number) if name == "step" else None


def lanes() -> list[tuple[str, str]]:
    """(strategy, symbol) of everything that is traded."""
    found = [(name, f"{coin}/USDT") for name in BINANCE for coin in QUANTITIES]
    found += [(name, f"{coin}/USD") for name in KRAKEN for coin in ("BTC", "ETH", "SOL")]
    return [*found, ("pair", "BTC/USDT"), ("pair", "ETH/USDT")]


def planned_strikes(kills: int) -> int:
    """Planned kills, and as many stalls as belong to them, for ``kills`` kills altogether."""
    stalls = sum(1 for point, _ in CELLS if point in STALLS)
    return round(kills * PLANNED_SHARE * len(CELLS) / (len(CELLS) - stalls))


Cell = tuple[Point, str]
Lane = tuple[str, str]


@dataclass
class Planner:
    """Draws the steps of a run in order."""

    seed: int
    steps: list[Step] = field(default_factory=list)
    encores: dict[Cell, list[list[Step]]] = field(default_factory=dict)
    _cancels: list[tuple[int, tuple[str, str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self._lanes = self._taking_turns(lanes())

    def draw(self, orders: int, kills: int) -> list[Step]:
        """``orders`` steps that ask for an order, and the cancels between them.

        The planned kills go through the cells in a shuffled order, each cell as often as any other.
        """
        cells = CHANCES * list(islice(cycle(self._shuffled()), planned_strikes(kills)))
        first = range(round(orders * PLANNED_BY))
        places = set(self.random.sample(first, min(len(cells), orders * 2 // 3)))
        left = iter(cells)
        for number in range(orders):
            if number in places:
                self._cell(*next(left))
            else:
                self._ordinary()
            self._cancel_what_is_due()
        return self.steps

    def everything(self, kills: int) -> list[Step]:
        """All that was drawn, and the encores after it."""
        drawn = list(self.steps)
        for cell in dict.fromkeys(islice(self._shuffled(), planned_strikes(kills))):
            self.encores[cell] = [self._encore(*cell) for _ in range(ENCORES)]
        everything, self.steps = self.steps, drawn
        return everything

    def _encore(self, point: Point, fault: str) -> list[Step]:
        first = len(self.steps)
        self._cell(point, fault)
        self._cancels, due = [], self._cancels
        for _, lane in due:
            self._add(lane, {"action": "cancel"})
        return self.steps[first:]

    def _taking_turns(self, lanes: list[Lane]) -> Iterator[Lane]:
        """Lanes at random, none again before each has been: in the end a run waits for the longest
        queue of a lane.
        """
        while True:
            yield from self.random.sample(lanes, len(lanes))

    def _shuffled(self) -> list[Cell]:
        cells = list(CELLS)
        Random(self.seed).shuffle(cells)
        return cells

    def _cell(self, point: Point, fault: str) -> None:
        lane = next(lane for lane in self._lanes if lane[0] in BINANCE)
        resting = point.startswith("C10") and point is not Point.RESENDING
        self._add(lane, _limit(lane, self.random) if resting else _market(lane), fault, point)
        if point is Point.CANCELED:
            self._cancels.append((len(self.steps) + CANCEL_AFTER, lane))

    def _cancel_what_is_due(self) -> None:
        while self._cancels and self._cancels[0][0] <= len(self.steps):
            self._add(self._cancels.pop(0)[1], {"action": "cancel"})

    def _ordinary(self) -> None:
        lane = next(self._lanes)
        if self.random.random() < GUARDED_SHARE:
            lane = self.random.choice(list(GUARDED))
            self._add(lane, _market(lane) | GUARDED[lane])
            return
        fault = NO_FAULT
        if self.random.random() < FAULTY_SHARE:
            fault = self.random.choice(list(FAULTS))
        kind = self.random.random()
        if kind < 0.55:
            body = _market(lane)
        elif kind < 0.7:
            body = _limit(lane, self.random)
        elif kind < 0.9:
            body = {"action": "close"}
        else:
            body = _market(lane) | {"action": "sell"}
        self._add(lane, body, fault)
        if self.random.random() < 0.04:
            self._add(lane, {"action": "cancel"})

    def _add(
        self,
        lane: tuple[str, str],
        body: dict[str, Any],
        fault: str = NO_FAULT,
        point: Point | None = None,
    ) -> None:
        strategy, symbol = lane
        index = len(self.steps)
        step = Step(index, strategy, symbol, {}, fault, point)
        step.body.update(body, id=step.key, symbol=symbol)
        self.steps.append(step)


def _market(lane: tuple[str, str]) -> dict[str, Any]:
    return {"action": "buy", "quantity": QUANTITIES[lane[1].partition("/")[0]]}


def _limit(lane: tuple[str, str], random: Random) -> dict[str, Any]:
    """A buy that rests some percent below the market."""
    price = PRICES[lane[1].partition("/")[0]] * random.randint(90, 98) // 100
    return _market(lane) | {"order_type": "limit", "price": str(price)}
