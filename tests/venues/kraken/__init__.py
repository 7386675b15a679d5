"""Kraken spot, REST, as its public documentation describes it."""
