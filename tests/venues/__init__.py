"""Loopback imitations of Binance spot and Kraken spot, with a ledger and scripted faults.

`python -m tests.venues --port 0` serves both on one port; `client.running_venue` does so in a test.
"""
