"""A lease on being the only one: an advisory lock of PostgreSQL, given back by whatever ends us."""

from __future__ import annotations

import psycopg
from django.db import Error, connections

BEAT = 0x464B5310


class Lease:
    """Holds ``number`` on a connection of its own; the server lets go of it when that ends.

    A holder whose host vanished loses it within twenty seconds (``fks_site/database.py``).
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._own = connections.create_connection("default")

    def take(self) -> bool:
        """Whether it is ours now; ``False`` also while the database does not answer."""
        try:
            with self._own.cursor() as cursor:
                cursor.execute("SELECT pg_try_advisory_lock(%s)", [self._number])
                (mine,) = cursor.fetchone()
        except Error:
            self.give_back()
            return False
        return bool(mine)

    def is_held(self) -> bool:
        """Whether the connection that holds it still lives; asks the server."""
        plain = self._own.connection
        if plain is None:
            return False
        try:
            plain.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True

    def give_back(self) -> None:
        """Let another one have it."""
        self._own.close()
