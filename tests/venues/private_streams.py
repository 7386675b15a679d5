"""The private stream of each venue that has one."""

from __future__ import annotations

from tests.venues.binance.user_stream import BinanceStream
from tests.venues.bybit.private_stream import BybitStream
from tests.venues.kraken.executions_stream import KrakenStream
from tests.venues.okx.private_stream import OkxStream
from tests.venues.private_stream import PrivateStream

STREAMS: dict[str, type[PrivateStream]] = {
    "binance": BinanceStream,
    "kraken": KrakenStream,
    "bybit": BybitStream,
    "bybit-linear": BybitStream,
    "okx": OkxStream,
    "okx-swap": OkxStream,
}
