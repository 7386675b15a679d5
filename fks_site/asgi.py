"""What the web server runs: Django behind the gate that reads its requests."""

from __future__ import annotations

import gc
import sys

from django.conf import settings
from django.urls import resolve

from fks_site.gate import BodyLimit, Gate, Together
from fks_site.wsgi import application as django_application

from fks_site import door  # isort: skip  (only now is Django ready for models)

# A thread back from the database must not wait for a busy one as long as its question took.
sys.setswitchinterval(0.0005)

application = Gate(
    django_application,
    (
        BodyLimit(door.PREFIX, settings.MAX_BODY_BYTES),
        BodyLimit("", settings.DATA_UPLOAD_MAX_MEMORY_SIZE or settings.MAX_BODY_BYTES),
    ),
    together=Together(door.takes, door.answer),
    refused=door.note_refused,
)

# Else the first request would load every page, and the collector walk through all of them for ever.
resolve("/ready")
gc.collect()
gc.freeze()
