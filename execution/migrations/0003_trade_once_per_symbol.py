"""Trade ids count per symbol at some venues: a trade is one of an account's symbol.

No code says ON CONFLICT to the constraint that goes, so the older one trades on without it.
"""

from typing import ClassVar

from django.db import migrations, models
from django.db.migrations.operations.base import Operation

CHANGE = """
    ALTER TABLE execution_fill
        ADD CONSTRAINT trade_once_per_symbol UNIQUE USING INDEX trade_once_per_symbol,
        DROP CONSTRAINT trade_once_per_account
"""
CHANGE_BACK = """
    ALTER TABLE execution_fill
        ADD CONSTRAINT trade_once_per_account UNIQUE (trade_id, account_id),
        DROP CONSTRAINT trade_once_per_symbol
"""


class Migration(migrations.Migration):
    dependencies: ClassVar[list[tuple[str, str]]] = [("execution", "0002_trade_ids_by_symbol")]
    operations: ClassVar[list[Operation]] = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(CHANGE, CHANGE_BACK)],
            state_operations=[
                migrations.RemoveConstraint("fill", "trade_once_per_account"),
                migrations.AddConstraint(
                    "fill",
                    models.UniqueConstraint(
                        fields=("trade_id", "account", "symbol"), name="trade_once_per_symbol"
                    ),
                ),
            ],
        )
    ]
