"""The index is built while orders go on being written."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("execution", "0013_attached_stop"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="order",
            index=models.Index(
                condition=models.Q(("attached_client_id", ""), _negated=True),
                fields=["attached_client_id"],
                name="order_by_attached_id",
            ),
        ),
    ]
