from __future__ import annotations

from typing import ClassVar

from django.db import migrations


class Migration(migrations.Migration):
    initial = True
    operations: ClassVar[list[migrations.RunSQL]] = [
        migrations.RunSQL("CREATE TABLE held (a int)", "DROP TABLE held"),
    ]
