"""The site: settings, Celery application, admin, dashboard, health and metrics."""

from __future__ import annotations

from fks_site.celery import app as celery_app

__all__ = ["celery_app"]
