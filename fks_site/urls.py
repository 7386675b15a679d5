from __future__ import annotations

from django.contrib import admin
from django.urls import path, re_path

from execution.webhooks import WebhookView
from fks_site import health

webhook = WebhookView.as_view()

urlpatterns = [
    re_path(r"^webhook/(?P<strategy>[^/]{1,63})/?$", webhook, name="webhook"),
    re_path(r"^webhook/(?P<strategy>[^/]{1,63})/(?P<token>[^/]{1,200})/?$", webhook),
    re_path(r"^health/?$", health.health, name="health"),
    re_path(r"^ready/?$", health.ready, name="ready"),
    path("admin/", admin.site.urls),
]
