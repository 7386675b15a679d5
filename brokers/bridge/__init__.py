"""The bridge agent: one small program beside a trading terminal, without Django.

FKS signs requests to it (`brokers.plugins.bridge`); it writes each order into a durable journal before
it acts, and a driver speaks to the terminal. `python -m brokers.bridge --help` is its command line.
"""

from __future__ import annotations

VERSION = "1.2"
PROTOCOL = 3
"""Both ends must name the same number: an older end refuses instead of misreading."""
