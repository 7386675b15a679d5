"""Scripted misbehaviour: which fault, if any, the next request of a kind meets."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any


class Endpoint(StrEnum):
    """What kind of request a fault applies to."""

    ORDER = "order"
    CANCEL = "cancel"
    QUERY = "query"
    PUBLIC = "public"
    ANY = "any"


class When(StrEnum):
    """Whether the venue acts on the request before it misbehaves."""

    BEFORE = "before"
    AFTER = "after"


class Action(StrEnum):
    """What goes wrong.

    DROP closes the connection unanswered. STATUS answers `status` with an HTML page (429 and 418
    in the venue's own words). CODE answers the venue's error `code`. HANG waits `seconds`: after
    acceptance it then answers, before acceptance it then drops. LATE waits `seconds`, then accepts
    and answers. TRUNCATE breaks off in the middle of the body. CUT_JSON, EMPTY and HTML are
    complete 200 answers that say nothing usable. DELAY_FILLS accepts but matches only `seconds`
    later. DOUBLE_FILLS lists every trade twice in the answer. FILL_FIRST fills whatever rests, whole,
    just before the request is acted upon.
    """

    DROP = "drop"
    STATUS = "status"
    CODE = "code"
    HANG = "hang"
    LATE = "late"
    TRUNCATE = "truncate"
    CUT_JSON = "cut_json"
    EMPTY = "empty"
    HTML = "html"
    DELAY_FILLS = "delay_fills"
    DOUBLE_FILLS = "double_fills"
    FILL_FIRST = "fill_first"


EITHER_SIDE = frozenset({Action.DROP, Action.STATUS, Action.CODE, Action.HANG})


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. In the queue it strikes `count` times; as a rate, with `probability` each time."""

    action: Action
    when: When = When.AFTER
    endpoint: Endpoint = Endpoint.ORDER
    venue: str = "any"
    status: int = 503
    code: str = ""
    seconds: float = 0.0
    count: int = 1
    probability: float = 1.0

    def __post_init__(self) -> None:
        if self.when is When.BEFORE and self.action not in EITHER_SIDE:
            raise ValueError(f"{self.action} happens only after acceptance")
        if self.action is Action.CODE and not self.code:
            raise ValueError("code needs the venue's error code")

    @classmethod
    def from_json(cls, raw: Mapping[str, object]) -> Fault:
        """Raises ValueError or TypeError when a field is unknown or does not fit."""
        unknown = set(raw) - {item.name for item in fields(cls)}
        if unknown:
            raise ValueError(f"unknown fault fields: {sorted(unknown)}")
        known: dict[str, Any] = dict(raw)
        for name, kind in (("action", Action), ("when", When), ("endpoint", Endpoint)):
            if name in known:
                known[name] = kind(known[name])
        return cls(**known)

    def as_json(self) -> dict[str, object]:
        return asdict(self)

    @property
    def label(self) -> str:
        return f"{self.action}:{self.when}"

    def strikes(self, venue: str, endpoint: Endpoint) -> bool:
        return self.venue in ("any", venue) and self.endpoint in (Endpoint.ANY, endpoint)


class FaultScript:
    """Queued faults first, in order; then rates, each drawn with the seeded generator."""

    def __init__(self, seed: int) -> None:
        self._lock = threading.Lock()
        self._random = random.Random(seed)
        self._queue: list[list[Fault]] = []
        self._rates: list[Fault] = []

    def load(self, queue: Iterable[Fault] = (), rates: Iterable[Fault] = ()) -> None:
        """Append to the queue and to the rates."""
        with self._lock:
            self._queue.extend([fault] * fault.count for fault in queue)
            self._rates.extend(rates)

    def clear(self) -> None:
        with self._lock:
            self._queue.clear()
            self._rates.clear()

    def pending(self) -> list[Fault]:
        """The queued faults that have not struck yet."""
        with self._lock:
            return [fault for run in self._queue for fault in run]

    def draw(self, venue: str, endpoint: Endpoint) -> Fault | None:
        with self._lock:
            for index, run in enumerate(self._queue):
                if run[0].strikes(venue, endpoint):
                    fault = run.pop()
                    if not run:
                        del self._queue[index]
                    return fault
            for fault in self._rates:
                struck = fault.strikes(venue, endpoint)
                if struck and self._random.random() < fault.probability:
                    return fault
            return None
