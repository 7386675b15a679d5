"""How FKS speaks to PostgreSQL: both ends give up on one that has vanished, and its locks with it.

A host whose network went away says goodbye to nobody. By the defaults of Linux the server would notice
after two hours, and until then a claim that was under way would hold the fence of the kill switch, a
decision its account, and beat its lease.
"""

from __future__ import annotations

from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

KEEPALIVE = 5
"""Seconds of silence before the other end is asked whether it is there, and between two questions."""
QUESTIONS = 3
GONE = KEEPALIVE * (QUESTIONS + 1)
"""Seconds after which an end that does not answer counts as gone."""
IDLE_IN_TRANSACTION = 60
"""Seconds a process may hold a transaction open without asking anything: it hangs, or is held up."""

_CLIENT = {
    "keepalives_idle": KEEPALIVE,
    "keepalives_interval": KEEPALIVE,
    "keepalives_count": QUESTIONS,
    "tcp_user_timeout": GONE * 1000,
}
_SERVER = {
    "tcp_keepalives_idle": KEEPALIVE,
    "tcp_keepalives_interval": KEEPALIVE,
    "tcp_keepalives_count": QUESTIONS,
    "tcp_user_timeout": GONE * 1000,
    "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION * 1000,
}


def config(url: str) -> dict[str, Any]:
    """Django's configuration of the database ``url`` names; its own options win over ours.

    Raises:
        ImproperlyConfigured: it is not a PostgreSQL.
    """
    found: dict[str, Any] = environ.Env.db_url_config(url)
    if found["ENGINE"] != "django.db.backends.postgresql":
        raise ImproperlyConfigured("DATABASE_URL must name a PostgreSQL database: postgres://…")
    server = " ".join(f"-c {name}={value}" for name, value in _SERVER.items())
    ours = {"prepare_threshold": 3, "options": server, **_CLIENT}
    return found | {"OPTIONS": ours | found.get("OPTIONS", {})}
