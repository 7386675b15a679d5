"""How the database is spoken to: neither end waits for one that has vanished.

That the locks of a host without a network go within twenty seconds is shown by ``tests/drill/cut.py``.
"""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from fks_site import backup, database

URL = "postgres://fks:secret@db.example:5433/fks"


def test_both_ends_ask_whether_the_other_is_there() -> None:
    options = database.config(URL)["OPTIONS"]

    assert options == {
        "prepare_threshold": 3,
        "keepalives_idle": 5,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
        "options": "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 "
        "-c tcp_user_timeout=20000 -c idle_in_transaction_session_timeout=60000",
    }
    assert database.GONE == 20


def test_an_operators_own_options_win() -> None:
    given = database.config(URL + "?keepalives_idle=60&sslmode=verify-full")["OPTIONS"]

    assert (given["keepalives_idle"], given["sslmode"]) == (60, "verify-full")
    assert given["keepalives_count"] == 3


def test_another_engine_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="PostgreSQL"):
        database.config("sqlite:///fks.db")


@pytest.mark.django_db
def test_the_server_ends_a_transaction_that_asks_nothing() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, source FROM pg_settings WHERE source = 'client'")
        told = {name for name, _ in cursor.fetchall()}
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        (idle,) = cursor.fetchone()

    assert idle == "1min"
    assert told >= {
        "tcp_keepalives_idle",
        "tcp_keepalives_interval",
        "tcp_keepalives_count",
        "tcp_user_timeout",
    }


@pytest.mark.django_db(transaction=True)
def test_a_backup_may_compress_a_large_table_meanwhile() -> None:
    with backup._snapshot() as cursor:
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        assert cursor.fetchone() == ("0",)
