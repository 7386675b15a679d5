"""Following an account's order stream: what it says is booked the way an answer is, at once.

The stream only hurries things up. It is never the only source: after each connection every order at the
venue is asked about once, whatever cannot be booked is asked about, and polling goes on as without it.
Trades are unique by their ids, so it does not matter who was first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from django.db import Error, close_old_connections, connections
from django.utils import timezone

from brokers.errors import QueryFailedError
from brokers.models import Account
from brokers.sessions import plugin_for
from brokers.streams import OrderNews, OrderStream, StreamLostError
from execution import liveness, metrics, reconcile, tasks
from execution.handing_out import hand_out
from execution.models import Heartbeat, Order
from execution.states import TERMINAL, OrderState

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before connecting again; each failure doubles them, a connection ends that."""
BEAT_EVERY = 5.0
NOT_YET = 0.05
"""Seconds until an event is looked at again whose order is just being sent."""
PATIENCE = 200
"""Looks at such an event; then its order is left to polling."""


class Follower:
    """Follows one account until ``stop`` is set, the account is switched off, or it has no stream."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._venue = account.venue
        self._stop = asyncio.Event()
        # One thread: events are booked in their order, on one database connection.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stream")
        self._heard: asyncio.Queue[tuple[OrderNews, int]] = asyncio.Queue()

    def stop(self) -> None:
        """End with the event under way. For signal handlers of the loop."""
        self._stop.set()

    async def run(self) -> None:
        """Raises BrokerError for an account that cannot be followed at all."""
        pause = FIRST_PAUSE
        try:
            while not self._stop.is_set():
                began = asyncio.get_running_loop().time()
                await self._once()
                lasted = asyncio.get_running_loop().time() - began
                pause = FIRST_PAUSE if lasted > LONGEST_PAUSE else min(pause * 2, LONGEST_PAUSE)
                await self._rest(pause / 2)
        finally:
            await self._within(self._leave)
            self._thread.shutdown()

    async def _once(self) -> None:
        """One connection, from its beginning to its end."""
        await self._within(self._read_account)
        if self._stop.is_set():
            return
        try:
            stream = await self._within(self._stream)
        except QueryFailedError as error:
            logger.warning("%s cannot be followed now: %s", self._account.name, error)
            return
        works: list[asyncio.Task[None]] = []
        try:
            await stream.connect()
            logger.info("the order stream of %s is connected", self._account.name)
            metrics.stream_connections.labels(self._venue).inc()
            works = [
                asyncio.create_task(self._listen(stream)),
                asyncio.create_task(self._book_all()),
                asyncio.create_task(self._keep_beating()),
                asyncio.create_task(self._until_stopped()),
            ]
            await self._within(self._look_at_all)
            done, _ = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
            for work in done:
                work.result()
        except StreamLostError as lost:
            logger.warning("the order stream of %s was lost: %s", self._account.name, lost)
        finally:
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            await stream.close()

    async def _listen(self, stream: OrderStream) -> None:
        while True:
            self._heard.put_nowait((await stream.next(), 0))

    async def _book_all(self) -> None:
        while True:
            news, looks = await self._heard.get()
            result = await self._within(partial(self._book, news))
            if result == "not yet" and looks < PATIENCE:
                loop = asyncio.get_running_loop()
                loop.call_later(NOT_YET, self._heard.put_nowait, (news, looks + 1))
                continue
            metrics.stream_events.labels(self._venue, result).inc()
            if result == "booked" and news.at is not None:
                lag = (timezone.now() - news.at).total_seconds()
                metrics.stream_lag.observe(max(lag, 0.0))

    async def _keep_beating(self) -> None:
        """A sign of life while connected; ends when the account has changed."""
        while await self._within(self._beat):
            await asyncio.sleep(BEAT_EVERY)

    async def _until_stopped(self) -> None:
        await self._stop.wait()

    async def _rest(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return

    async def _within(self, work: Callable[[], Result]) -> Result:
        """``work`` in the thread that may wait for the database and the venue."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # --- in the thread ----------------------------------------------------------------------------

    def _read_account(self) -> None:
        try:
            self._account = Account.objects.get(pk=self._account.pk)
        except Error as error:
            logger.warning("the database does not answer: %s", type(error).__name__)
            close_old_connections()
            return
        if not self._account.is_active:
            logger.info("%s is switched off: its stream ends", self._account.name)
            self._stop.set()

    def _stream(self) -> OrderStream:
        return plugin_for(self._account).order_stream()

    def _beat(self) -> bool:
        try:
            liveness.beat(f"stream {self._account.pk}")
            now = Account.objects.only("version", "is_active").get(pk=self._account.pk)
        except Error as error:
            logger.warning("no sign of life could be noted: %s", type(error).__name__)
            close_old_connections()
            return True
        return now.is_active and now.version == self._account.version

    def _leave(self) -> None:
        """Whoever ended on purpose is not missed: the sign of life goes."""
        try:
            Heartbeat.objects.filter(name=f"stream {self._account.pk}").delete()
        except Error as error:
            logger.warning("the sign of life stays: %s", type(error).__name__)
        connections.close_all()

    def _look_at_all(self) -> None:
        """What happened while nobody listened: every order at the venue is asked about."""
        try:
            for order in reconcile.unfinished(self._account):
                hand_out(tasks.check_order, str(order.pk))
        except Error as error:
            logger.warning("not everything could be asked about: %s", type(error).__name__)
            close_old_connections()

    def _book(self, news: OrderNews) -> str:
        """What became of one event."""
        if not (news.client_order_id or news.broker_order_id):
            self._look_at_all()
            return "asked"
        try:
            order = self._order_of(news)
            if order is None:
                return "not yet" if self._may_be_ours(news) else "foreign"
            if order.state == OrderState.SUBMITTING:
                # The answer to its placement is booked first: it is proof, and it has the fills too.
                return "not yet"
            if news.report is None:
                return self._ask_about(order)
            tasks.book_report(order, news.report)
        except Exception as error:
            # The boundary of the thread: one event must not end the stream; polling will find out.
            logger.exception("an event of the stream cannot be booked")
            if isinstance(error, Error):
                close_old_connections()
            return "failed"
        return "booked"

    def _ask_about(self, order: Order) -> str:
        if order.state in TERMINAL:
            return "known"
        hand_out(tasks.check_order, str(order.pk))
        return "asked"

    def _order_of(self, news: OrderNews) -> Order | None:
        rows = Order.objects.select_related("account").filter(account=self._account)
        if news.client_order_id:
            return rows.filter(client_order_id=news.client_order_id, is_adopted=False).first()
        return rows.filter(broker_order_id=news.broker_order_id).first()

    def _may_be_ours(self, news: OrderNews) -> bool:
        """Whether the event names an order by an id we learn only from an answer under way."""
        sending = Order.objects.filter(account=self._account, state=OrderState.SUBMITTING)
        return not news.client_order_id and sending.exists()
