"""What a unit cost of what was flattened in part, kept with the difference that is its rest."""

from typing import ClassVar

from django.db import migrations
from django.db.migrations.operations.base import Operation

from brokers.fields import MoneyField


class Migration(migrations.Migration):
    dependencies: ClassVar[list[tuple[str, str]]] = [("execution", "0004_theirs_since")]
    operations: ClassVar[list[Operation]] = [
        migrations.AddField(
            "difference",
            "rest_cost",
            MoneyField(
                null=True,
                editable=False,
                help_text="What a unit cost of what was flattened in part, where this is its rest.",
            ),
        )
    ]
