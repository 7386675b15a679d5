"""What goes wrong around the processes: servers restart, a halt is pressed, trades trickle in."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

import redis

from fks_site.embedded import Postgres, Valkey
from tests.chaos.clock import SharedClock
from tests.chaos.fleet import Fleet
from tests.chaos.fuses import STALL_S
from tests.chaos.plan import BINANCE
from tests.venues.client import ControlError, VenueControl

EVERY = 400
"""Orders acknowledged between two troubles."""
KILLS_IN_A_ROLL = 2
PATIENCE_S = 180
"""For what a trouble starts or ends, on a machine however slow."""
JUMP_S = 45 * 60
"""Less than alerts may be old: else those that wait would rightly expire."""
MOVE_EVERY_S = 6
FILLED_SHARE = 0.9
"""Of the resting orders, whose second half trades as well; the others are asked about for long."""
MOVES = (
    ("binance", "BNB/USDT", 600, 597),
    ("binance", "BNB/USDT", 600, 604),
    ("kraken", "SOL/USD", 150, 149),
)
"""What the market does in turn: to a price that reaches stops or targets, and back."""


@dataclass
class Halt:
    """From ``pressed`` to ``released`` nothing of the account may be claimed for sending."""

    account: str
    pressed: datetime
    released: datetime


@dataclass
class Troubles:
    """Each kind in its turn. The servers are restarted by the thread that calls ``strike``, whose
    end would be theirs.
    """

    fleet: Fleet
    postgres: Postgres
    valkey: Valkey
    redis_url: str
    random: Random
    clock: SharedClock
    control: VenueControl
    counts: Counter[str] = field(default_factory=Counter)
    halts: list[Halt] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _pressing: threading.Lock = field(default_factory=threading.Lock)

    def kinds(self) -> dict[str, Callable[[], None]]:
        return {
            "worker frozen past its lease": lambda: self._aside(self._freeze),
            "Valkey flushed": self._flush_valkey,
            "PostgreSQL immediate restart": self._crash_postgres,
            "kill switch killed half-way (C11)": lambda: self._aside(self._halt),
            "reconciliation killed half-way (C10)": lambda: self._aside(self._reconcile),
            # Well before the end: a question that fails just then makes an order need an operator, and
            # it is asked about again half a minute later.
            "clock jumps ahead": self._jump,
            "Valkey stopped": self._stop_valkey,
            "rolling restart with migrate and kills (C12)": self._roll,
            "flatten killed half-way (C11)": lambda: self._aside(self._flatten),
        }

    def strike(self, number: int) -> None:
        """The ``number``-th trouble."""
        kinds = list(self.kinds().items())
        name, act = kinds[number % len(kinds)]
        self.counts[name] += 1
        act()

    def wait(self) -> None:
        """Until no trouble is under way."""
        for thread in self._threads:
            thread.join()

    def _aside(self, act: Callable[[], None]) -> None:
        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _freeze(self) -> None:
        self.fleet.freeze_one(STALL_S)

    def _crash_postgres(self) -> None:
        process = self.postgres._process
        assert process is not None
        process.send_signal(signal.SIGQUIT)
        process.wait(PATIENCE_S)
        self.postgres.start()

    def _flush_valkey(self) -> None:
        with redis.Redis.from_url(self.redis_url) as client:
            client.flushall()

    def _stop_valkey(self) -> None:
        self.valkey.stop()
        time.sleep(1)
        self.valkey.start()

    def _roll(self) -> None:
        self.fleet.run("migrate", seconds=PATIENCE_S)
        self.fleet.roll()
        for _ in range(KILLS_IN_A_ROLL):
            time.sleep(0.3)
            self.fleet.kill_one()

    def _jump(self) -> None:
        """As after a machine was asleep: leases, settle windows and pauses seem long over."""
        with self._pressing:
            self.clock.jump(JUMP_S)
            self.control.set_clock_offset(self.clock.ahead * 1000)

    def _now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.clock.ahead)

    def _reconcile(self) -> None:
        """Killed before its differences are stored, after, and in between; then carried out."""
        account = self.random.choice(BINANCE)
        for moment in ("before", "within", "after", ""):
            self.fleet.run("reconcile", account, moment, seconds=PATIENCE_S)

    def _flatten(self) -> None:
        """Pressed, killed between the halt and the end of the closes; carried out by the workers."""
        account = self.random.choice(BINANCE)
        with self._pressing:
            die = str(self.random.randint(0, 2))
            pressed = self._press(account, die, "flatten")
            self._release(account, pressed, 3)

    def _halt(self) -> None:
        """Pressed, killed between the halt and the cancels; pressed again; released."""
        account = self.random.choice(BINANCE)
        with self._pressing:
            pressed = self._press(account, str(self.random.randint(0, 1)))
            again = self._press(account, "")
            self._release(account, pressed or again, 1)

    def _press(self, account: str, die: str, *mode: str) -> datetime | None:
        """Since when the account is halted; ``None`` where the command failed before that."""
        ended = self.fleet.run("halt", account, die, *mode, seconds=PATIENCE_S)
        return self._now() if ended in (0, -signal.SIGKILL) else None

    def _release(self, account: str, pressed: datetime | None, seconds: int) -> None:
        """Resume trading after so long."""
        time.sleep(seconds)
        if pressed is not None:
            self.halts.append(Halt(account, pressed, self._now()))
        self.fleet.run("resume", account, seconds=PATIENCE_S)


class MarketMaker:
    """Trades against resting orders: half of one, later perhaps the rest."""

    def __init__(self, control: VenueControl, seed: int) -> None:
        self._control = control
        self._random = Random(seed)
        self._seen = dict.fromkeys(("binance", "kraken"), 0)
        self._due: list[tuple[float, str, str, str, str]] = []
        self.moves: Counter[str] = Counter()
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name="market", daemon=True)

    def _run(self) -> None:
        last = time.monotonic()
        while not self.stopping.wait(0.3):
            with suppress(ControlError, OSError):
                for venue in self._seen:
                    self._look(venue)
                if time.monotonic() - last > MOVE_EVERY_S:
                    self._move()
                    last = time.monotonic()
            self._trade()

    def _move(self) -> None:
        """Long enough for a target to be seen: those are looked at every second."""
        venue, symbol, usual, reached = MOVES[self.moves.total() % len(MOVES)]
        self._control.set_price(venue, symbol, reached)
        self.stopping.wait(2 if reached > usual else 0.3)
        self._control.set_price(venue, symbol, usual)
        self.moves["market reached stops or targets"] += 1

    def _look(self, venue: str) -> None:
        for order in self._control.ledger(venue, self._seen[venue], 1 << 40).orders:
            self._seen[venue] = max(self._seen[venue], order.sequence)
            if order.price is None:
                continue
            half = str(order.quantity / 2)
            now = time.monotonic()
            self._due.append(
                (now + self._random.uniform(0.2, 2), venue, order.account, order.id, half)
            )
            if self._random.random() < FILLED_SHARE:
                self._due.append(
                    (now + self._random.uniform(2, 4), venue, order.account, order.id, half)
                )

    def _trade(self) -> None:
        now = time.monotonic()
        ready = [one for one in self._due if one[0] <= now]
        self._due = [one for one in self._due if one[0] > now]
        for _, venue, account, order_id, quantity in sorted(ready):
            with suppress(ControlError, OSError):
                self._control.fill(venue, order_id, quantity, account=account)
