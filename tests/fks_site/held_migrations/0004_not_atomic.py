from __future__ import annotations

from typing import ClassVar

from django.db import migrations


class Migration(migrations.Migration):
    atomic = False
    dependencies: ClassVar[list[tuple[str, str]]] = [("humanize", "0003_index")]
    operations: ClassVar[list[migrations.RunSQL]] = [
        migrations.RunSQL("ALTER TABLE held ADD c int", "ALTER TABLE held DROP c"),
    ]
