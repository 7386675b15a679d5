"""Binance spot, REST v3, as its public documentation describes it."""
