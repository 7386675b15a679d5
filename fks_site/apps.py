from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.contrib import admin
from django.contrib.admin.apps import SimpleAdminConfig
from django.contrib.admin.checks import check_admin_app, check_dependencies
from django.core import checks


class FksSiteConfig(AppConfig):
    name = "fks_site"
    verbose_name = "FKS"

    def ready(self) -> None:
        from fks_site import checks, logins  # noqa: F401  (importing registers the checks)

        logins.listen()


class AdminConfig(SimpleAdminConfig):
    """Django's admin, whose pages are loaded with the URLs: a worker, the clock and most commands show
    none, and loading them is a third of a process's start.
    """

    def ready(self) -> None:
        checks.register(check_dependencies, checks.Tags.admin)
        checks.register(_check_pages, checks.Tags.admin)


def _check_pages(
    app_configs: Sequence[AppConfig] | None, **options: Any
) -> list[checks.CheckMessage]:
    admin.autodiscover()
    return check_admin_app(app_configs, **options)
