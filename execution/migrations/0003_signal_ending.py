from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("execution", "0002_unanswered_orders"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="signal",
            index=models.Index(
                condition=models.Q(
                    ("action__in", ["cancel", "close"]),
                    ("alert__market_position", "flat"),
                    _connector="OR",
                ),
                fields=["strategy", "symbol", "-id"],
                name="signal_ending",
            ),
        ),
    ]
