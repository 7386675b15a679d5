"""The agent's command line: `key`, `check`, `serve`, `selftest`, `pack`."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType

from brokers.bridge import VERSION, drivers, selftest, settings
from brokers.bridge.client import BridgeError, BridgeRefusal
from brokers.bridge.driver import Driver
from brokers.bridge.journal import Journal
from brokers.bridge.package import pack
from brokers.bridge.server import BridgeServer
from brokers.bridge.service import Service
from brokers.bridge.settings import Settings
from brokers.bridge.signing import new_key
from brokers.errors import BrokerError

logger = logging.getLogger("brokers.bridge")

LOG_BYTES = 5 * 1024 * 1024
EXPECTED = (ValueError, OSError, BrokerError, BridgeError, BridgeRefusal)
"""What a person can put right by the message alone."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when all is well."""
    told = _parser().parse_args(arguments)
    try:
        done: int = told.run(told)
    except EXPECTED as error:
        # pythonw, which starts the agent without a window, has no stderr
        if sys.stderr is not None:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return done


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fks-bridge", description="FKS's agent at a terminal.")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True)
    for name, run, text in (
        ("key", _key, "make a key file, which FKS gets as bridge_key"),
        ("check", _check, "read the settings and ask the terminal; change nothing"),
        ("serve", _serve, "run the agent"),
        ("selftest", _selftest, "place a far limit order on a demo account, find and cancel it"),
        ("pack", _pack, "write the agent as one file, fks-bridge.pyz"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("path", type=Path, help="the settings, or the file to write")
        command.set_defaults(run=run)
        if name == "selftest":
            command.add_argument("--account", required=True)
            command.add_argument("--symbol", required=True, help="as the settings list it")
            command.add_argument("--price", help="about now, for a terminal that tells none")
    return parser


def _key(told: argparse.Namespace) -> int:
    handle = os.open(told.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(new_key() + "\n")
    _say(f"{told.path} holds the key; give its text to FKS as the credential bridge_key")
    return 0


def _check(told: argparse.Namespace) -> int:
    read = settings.read(told.path)
    journal = Journal(read.journal)
    made = drivers.make(read, journal)
    try:
        for account, driver in made.items():
            standing = driver.standing()
            kind = "REAL" if standing.is_live else "demo"
            fits = "" if standing.account == account else f", but the file lists {account}"
            _say(f"{driver.label}: on account {standing.account} ({kind}){fits}")
            for symbol in read.instruments:
                rules = driver.instrument(symbol)
                steps = f"quantity {rules.quantity_step:f}, price {rules.price_tick:f}"
                _say(f"  {symbol} = {rules.venue_symbol}, steps: {steps}")
    finally:
        _stop(made, journal)
    return 0


def _serve(told: argparse.Namespace) -> int:
    read = settings.read(told.path)
    _log_to(read.log)
    try:
        _run(read)
    except EXPECTED as error:
        # without a console the log is the only place where somebody can read why
        logger.error("ended: %s", error)
        raise
    return 0


def _run(read: Settings) -> None:
    journal = Journal(read.journal)
    made = drivers.make(read, journal)
    server = BridgeServer(read, Service(read, journal, made))
    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    scheme = "http" if read.certificate is None else "https"
    _say(f"fks-bridge {VERSION}: {read.driver} on {scheme}://{read.host}:{server.server_port}")
    logger.info("started: %s, %d orders without a result", read.driver, journal.unresolved())
    while not ended.wait(1):
        pass
    server.shutdown()
    _stop(made, journal)


def _selftest(told: argparse.Namespace) -> int:
    return selftest.run(settings.read(told.path), told.account, told.symbol, told.price, _say)


def _pack(told: argparse.Namespace) -> int:
    pack(told.path)
    _say(f"{told.path}: run it with `python {told.path} --help`, Python 3.11 or newer")
    return 0


def _stop(made: dict[str, Driver], journal: Journal) -> None:
    for driver in made.values():
        driver.stop()
    journal.close()


def _log_to(path: Path) -> None:
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=5, encoding="utf-8")
    form = "%(asctime)s %(levelname)s %(name)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, handlers=[handler])
    sys.excepthook = _log_the_end


def _log_the_end(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    logger.critical("ended: %s", error, exc_info=(kind, error, trace))
    sys.__excepthook__(kind, error, trace)


def _say(text: str) -> None:
    if sys.stdout is not None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
