"""Log configuration: one JSON object or one readable line per event, secrets scrubbed on the way
out.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

from risk import correlation

# Each alternative ends where a secret begins; a quoted one ends at the same quote, plain or escaped.
_SECRETS = re.compile(
    r"""(?ix)
    (?P<name>
        (?: (?:secret|token|passphrase|password|api_?key|api_?secret|signature|authorization)
            \\*["']? | (?<=["'])key\\*["'] )
        \s* [:=] \s* )
    (?: (?P<quote>\\*["']) (?:(?!(?P=quote))(?:\\.|.))* | (?:(?:basic|bearer)\s+)? [^\s"',;&}]+ )
    | (?P<path>/webhook/[^/\s?"']+/) [^\s?"']+
    | (?P<url>://[^/\s:@]*:) [^/\s@]+ (?=@)
    """
)
# What could forge a line or drive a terminal.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(0x7F, 0xA0))}
_CONTROLS |= {0x0A: "\\n", 0x0D: "\\r", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_CONTROLS_IN_TRACEBACKS = {code: text for code, text in _CONTROLS.items() if code != 0x0A}


def scrub(text: str) -> str:
    """``text`` with whatever looks like a secret masked: the last line of defence, not the first."""
    return _SECRETS.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    kept = match["name"] or match["path"] or match["url"]
    return f"{kept}{match['quote'] or ''}***"


class ScrubbingFormatter(logging.Formatter):
    """Readable lines without secrets; a message is one line, whatever an outsider put into it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).translate(_CONTROLS)

    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record)).translate(_CONTROLS_IN_TRACEBACKS)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, process, message, the error if there was
    one, and which signal (``correlation_id``) and order the line is about.
    """

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": scrub(record.getMessage()),
        }
        if signal_id := record.__dict__.get("signal_id") or correlation.current():
            event["correlation_id"] = str(signal_id)
        for name in ("order_id", "account", "symbol"):
            if name in record.__dict__:
                event[name] = scrub(str(record.__dict__[name]))
        if record.exc_info:
            event["error"] = scrub(self.formatException(record.exc_info))
        return json.dumps(event)


def logging_config(style: str, *, debug: bool) -> dict[str, Any]:
    """A ``dictConfig`` that writes to standard error in ``json`` or ``console`` style."""
    level = "DEBUG" if debug else "INFO"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "console": {
                "()": "fks_site.logs.ScrubbingFormatter",
                "format": "%(asctime)s %(levelname)-7s %(name)s  %(message)s",
            },
            "json": {"()": "fks_site.logs.JsonFormatter"},
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "json" if style == "json" else "console",
            },
            "nowhere": {"class": "logging.NullHandler"},
        },
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {name: {"level": level} for name in ("brokers", "risk", "execution", "fks_site")}
        | {
            # ccxt logs signed requests at DEBUG; a request that failed is ours to report, once.
            "ccxt": {"level": "WARNING"},
            # An address of a service is a secret; what it answered is ours to report, without it.
            "apprise": {"level": "WARNING", "handlers": ["nowhere"], "propagate": False},
            "django.request": {"level": "ERROR"},
        },
    }
