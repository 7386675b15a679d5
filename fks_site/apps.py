from __future__ import annotations

from django.apps import AppConfig


class FksSiteConfig(AppConfig):
    name = "fks_site"
    verbose_name = "FKS"

    def ready(self) -> None:
        from fks_site import checks, logins  # noqa: F401  (importing registers the checks)

        logins.listen()
