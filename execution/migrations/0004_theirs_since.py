"""Since when a venue has said what it says about a difference. Older code leaves it empty."""

from typing import ClassVar

from django.db import migrations, models
from django.db.migrations.operations.base import Operation


class Migration(migrations.Migration):
    dependencies: ClassVar[list[tuple[str, str]]] = [("execution", "0003_trade_once_per_symbol")]
    operations: ClassVar[list[Operation]] = [
        migrations.AddField(
            "difference",
            "theirs_since",
            models.DateTimeField(
                null=True,
                editable=False,
                help_text="When the venue first said what it still says.",
            ),
        )
    ]
