from __future__ import annotations

from typing import ClassVar

from django.db import migrations


class Migration(migrations.Migration):
    atomic = False
    dependencies: ClassVar[list[tuple[str, str]]] = [("humanize", "0002_column")]
    operations: ClassVar[list[migrations.RunSQL]] = [
        migrations.RunSQL(
            "CREATE INDEX CONCURRENTLY held_b ON held (b)", "DROP INDEX CONCURRENTLY held_b"
        ),
    ]
