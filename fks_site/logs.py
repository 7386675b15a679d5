"""Log configuration: one JSON object or one readable line per event, secrets scrubbed on the way
out.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

_SECRETS = re.compile(
    r"""(?ix)
    (["']?(?:secret|token|passphrase|password|api_?key|api_?secret|signature|authorization)["']?
    \s*[:=]\s*["']?) [^\s"',&}]+ | (/webhook/[^/\s?"']+/) [^\s/?"']+
    """
)


def scrub(text: str) -> str:
    """``text`` with whatever looks like a secret masked: the last line of defence, not the first."""
    return _SECRETS.sub(lambda match: f"{match[1] or match[2]}***", text)


class ScrubbingFormatter(logging.Formatter):
    """Readable lines without secrets and without control characters that could forge lines."""

    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record)).replace("\r", "\\r")


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, message, and the error if there was one."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": scrub(record.getMessage()),
        }
        for name in ("signal_id", "order_id", "account"):
            if name in record.__dict__:
                event[name] = str(record.__dict__[name])
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
            }
        },
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {name: {"level": level} for name in ("brokers", "risk", "execution", "fks_site")}
        | {
            # ccxt logs signed requests at DEBUG; a request that failed is ours to report, once.
            "ccxt": {"level": "WARNING"},
            "django.request": {"level": "ERROR"},
        },
    }
