"""Loopback imitations of Binance, Kraken, Bybit, OKX, Alpaca and OANDA, with a ledger each
and scripted faults.

`python -m tests.venues --port 0` serves all on one port; `client.running_venue` does so in a test.
"""
