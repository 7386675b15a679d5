"""Another password of the database: a second role beside the first, which then goes."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection

pytestmark = pytest.mark.django_db(transaction=True)
ROLES = {"fks_one": "first-password", "fks_two": "second-password"}


@pytest.fixture(autouse=True)
def _no_role_is_left() -> Iterator[None]:
    yield
    for role in ROLES:
        end(role)


def grant(role: str, folder: Path) -> None:
    address = folder / role
    address.write_text(f"postgres://{role}:{ROLES[role]}@db:5432/fks")
    call_command("grant_role", "--url-file", str(address), stdout=StringIO())


def end(role: str) -> None:
    """As docs/upkeep.md says it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regrole(%s) IS NOT NULL", [role])
        if cursor.fetchone()[0]:
            cursor.execute(f"GRANT {role} TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}")


def connected(role: str) -> psycopg.Connection[Any]:
    settings = connection.get_connection_params()
    mine = {name: settings[name] for name in ("dbname", "host", "port") if name in settings}
    return psycopg.connect(user=role, password=ROLES[role], autocommit=True, **mine)


def test_both_roles_work_until_the_first_is_ended(tmp_path: Path) -> None:
    grant("fks_one", tmp_path)
    with connected("fks_one") as older:
        grant("fks_two", tmp_path)
        with connected("fks_two") as newer:
            for one in (older, newer):
                assert one.execute("UPDATE execution_order SET id = id").rowcount == 0
    end("fks_one")

    with connected("fks_two") as newer:
        newer.execute("DELETE FROM execution_order")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            newer.execute("DELETE FROM risk_auditevent")
    with pytest.raises(psycopg.OperationalError, match="fks_one"):
        connected("fks_one")
