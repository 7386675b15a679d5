"""The index of ``trade_once_per_symbol``, made beside traffic; what was left half made goes first."""

from typing import ClassVar

from django.db import migrations
from django.db.migrations.operations.base import Operation

MAKE = (
    "CREATE UNIQUE INDEX CONCURRENTLY trade_once_per_symbol "
    "ON execution_fill (trade_id, account_id, symbol)"
)
DROP = "DROP INDEX CONCURRENTLY IF EXISTS trade_once_per_symbol"


class Migration(migrations.Migration):
    atomic = False
    dependencies: ClassVar[list[tuple[str, str]]] = [("execution", "0001_initial")]
    operations: ClassVar[list[Operation]] = [
        migrations.RunSQL(DROP, migrations.RunSQL.noop),
        migrations.RunSQL(MAKE, DROP),
    ]
