"""What the web server runs: Django behind the gate that reads its requests."""

from __future__ import annotations

from django.conf import settings

from fks_site.gate import BodyLimit, Gate
from fks_site.wsgi import application as django_application

application = Gate(
    django_application,
    (
        BodyLimit("/webhook/", settings.MAX_BODY_BYTES),
        BodyLimit("", settings.DATA_UPLOAD_MAX_MEMORY_SIZE or settings.MAX_BODY_BYTES),
    ),
)
