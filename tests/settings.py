"""The site's settings on a test run's own servers.

pytest-django loads the settings before any conftest, so the servers are started here.
"""

from __future__ import annotations

from tests import servers

servers.ensure()

from fks_site.settings import *  # noqa: E402, F403  (reads the environment prepared above)

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
