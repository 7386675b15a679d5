from __future__ import annotations

import os
import signal

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fks_site.settings")

# A server process that is still loading would otherwise ignore a request to stop.
signal.signal(signal.SIGTERM, signal.SIG_DFL)

application = get_wsgi_application()
