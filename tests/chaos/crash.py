"""Crash points around the product's own functions, put there before a process of the run starts.

Nothing of this is in the product: each wrapper calls the real function and kills the process
before it, after it, or in the middle of a transaction or of a request it makes.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import wraps
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from brokers.plugins.ccxt import CcxtPlugin
from execution import dispatch, intake, nudge, orders, pipeline, reconcile, transitions
from execution.models import Order, OrderEvent, Signal
from tests.chaos.fuses import Fuses
from tests.chaos.plan import index_of
from tests.chaos.points import NO_FAULT, Point
from tests.chaos.venue import ANNOUNCE

ORDER_PATHS = (b"POST /api/v3/order ", b"POST /0/private/AddOrder ")


def _put(place: Any, name: str, function: Callable[..., Any]) -> None:
    setattr(place, name, function)


class Crasher:
    """The crash points of one process. ``venue`` is where faults are announced."""

    def __init__(self, fuses: Fuses, venue: str) -> None:
        self.fuses = fuses
        self.venue = urlsplit(venue).netloc
        self.here = threading.local()
        self._indexes: dict[UUID, int | None] = {}

    def install(self) -> None:
        self._wrap_intake()
        self._wrap_decisions()
        self._wrap_placements()
        self._wrap_questions()
        self._wrap_journal()
        self._wrap_requests()

    def index_of_signal(self, signal_id: UUID | None) -> int | None:
        """The step behind a signal; ``None`` for one that is none of the plan's."""
        if signal_id is None:
            return None
        if signal_id not in self._indexes:
            self._note(Signal.objects.only("alert").get(pk=signal_id))
        return self._indexes[signal_id]

    def index_of_order(self, order: Order) -> int | None:
        return self.index_of_signal(order.signal_id)

    def _note(self, signal: Signal) -> int | None:
        self._indexes[signal.pk] = index = index_of(signal.alert.get("idempotency_key"))
        return index

    def _around(
        self,
        place: Any,
        name: str,
        index: Callable[..., int | None],
        *,
        before: Point | None = None,
        after: Point | None = None,
        within: str = "",
    ) -> None:
        """Wrap ``place.name``; ``within`` names what the journal's crash points are to know."""
        original = getattr(place, name)

        @wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            step = index(*args, **kwargs)
            if before:
                self.fuses.strike(step, before)
            outer = getattr(self.here, "within", "")
            self.here.within = within or outer
            try:
                result = original(*args, **kwargs)
            finally:
                self.here.within = outer
            if after:
                self.fuses.strike(step, after)
            return result

        _put(place, name, wrapper)

    def _wrap_intake(self) -> None:
        accept_all = intake.accept_all

        def accepted(deliveries: Sequence[tuple[intake.Received, UUID]]) -> list[intake.Accepted]:
            steps = [index_of(received.alert.idempotency_key) for received, _ in deliveries]
            for step in steps:
                self.fuses.strike(step, Point.NOT_STORED)
            results = accept_all(deliveries)
            for step in steps:
                self.fuses.strike(step, Point.STORED)
            return results

        _put(intake, "accept_all", accepted)
        publish = nudge._nudger._publish

        def published(signal_ids: list[str]) -> None:
            steps = [self.index_of_signal(UUID(signal_id)) for signal_id in signal_ids]
            for step in steps:
                self.fuses.strike(step, Point.NOT_PUBLISHED)
            publish(signal_ids)
            for step in steps:
                self.fuses.strike(step, Point.PUBLISHED)

        nudge._nudger._publish = published

    def _wrap_decisions(self) -> None:
        self._around(pipeline, "decide", self._note, after=Point.DECIDED)

    def _wrap_placements(self) -> None:
        self._around(
            dispatch,
            "place",
            lambda order, _: self._placing(order),
            before=Point.CLAIMED,
            within="placing",
        )
        self._around(
            dispatch,
            "_book",
            lambda order, *_: self.index_of_order(order),
            before=Point.KNOWN,
            after=Point.BOOKED,
        )
        self._around(
            CcxtPlugin, "cancel_order", lambda _, ref: self._of_identity(ref), after=Point.CANCELED
        )
        original = CcxtPlugin.execute_order

        def execute_order(plugin: CcxtPlugin, request: Any) -> Any:
            self.here.sending = step = self.here.placing
            self._announce(plugin, request.identity, step)
            self.fuses.strike(step, Point.STALL_CLAIMED)
            try:
                return original(plugin, request)
            finally:
                self.here.sending = None

        _put(CcxtPlugin, "execute_order", execute_order)

    def _placing(self, order: Order) -> int | None:
        step = self.here.placing = self.index_of_order(order)
        return step

    def _of_identity(self, named: Any) -> int | None:
        order = Order.objects.only("signal_id").get(pk=UUID(hex=named.identity))
        return self.index_of_order(order)

    def _announce(self, plugin: CcxtPlugin, identity: str, step: int | None) -> None:
        fault = NO_FAULT if step is None else self.fuses.fault_of(step)
        if fault == NO_FAULT:
            return
        body = json.dumps({"client_id": plugin.client_order_id(identity), "fault": fault})
        connection = http.client.HTTPConnection(self.venue, timeout=5)
        with closing(connection), suppress(OSError):
            connection.request("POST", ANNOUNCE, body)
            connection.getresponse().read()

    def _wrap_questions(self) -> None:
        self._around(
            reconcile,
            "check_order",
            self.index_of_order,
            before=Point.ASKING,
            within="asking",
        )
        for name in ("book", "_not_found"):
            self._around(
                reconcile,
                name,
                lambda order, *_, **__: self.index_of_order(order),
                before=Point.ASKED,
            )

    def _wrap_journal(self) -> None:
        """Every journal row is written by the last statement of a transaction that moves an order."""

        def striking(write: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(write)
            def written(*args: Any, along: OrderEvent | None = None, **kwargs: Any) -> Any:
                done = write(*args, along=along, **kwargs)
                if along is not None and done is not False:
                    self._strike_after(along)
                return done

            return written

        create = OrderEvent.objects.create

        def created(**row: Any) -> OrderEvent:
            made = create(**row)
            self._strike_after(made)
            return made

        _put(transitions, "change", striking(transitions.change))
        _put(orders, "insert", striking(orders.insert))
        OrderEvent.objects.create = created  # type: ignore[method-assign]

    def _strike_after(self, line: OrderEvent) -> None:
        step = self.index_of_order(line.order)
        match line.event, getattr(self.here, "within", ""):
            case "create", _:
                self.fuses.strike(step, Point.DECIDING)
            case "claim", _:
                self.fuses.strike(step, Point.CLAIMING)
            case "send_again", _:
                self.fuses.strike(step, Point.RESENDING)
            case _, "placing":
                self.fuses.strike(step, Point.BOOKING)
            case _, "asking":
                self.fuses.strike(step, Point.FINDING)

    def _wrap_requests(self) -> None:
        send, getresponse = http.client.HTTPConnection.send, http.client.HTTPConnection.getresponse

        def half_sent(connection: Any, data: Any) -> None:
            step = getattr(self.here, "sending", None)
            if step is not None and bytes(data).startswith(ORDER_PATHS):
                connection.chaos_step = step
                self.fuses.strike(step, Point.STALL_SIGNED)
            elif self.fuses.is_set(getattr(connection, "chaos_step", None), Point.HALF_SENT):
                send(connection, bytes(data)[: len(data) // 2])
                self.fuses.strike(connection.chaos_step, Point.HALF_SENT)
                return
            send(connection, data)

        def unread(connection: Any) -> Any:
            step = getattr(connection, "chaos_step", None)
            connection.chaos_step = None
            try:
                return getresponse(connection)
            finally:
                self.fuses.strike(step, Point.UNREAD)

        _put(http.client.HTTPConnection, "send", half_sent)
        _put(http.client.HTTPConnection, "getresponse", unread)
