from __future__ import annotations

from django.contrib import admin
from django.urls import path, re_path

from execution.webhooks import WebhookView

webhook = WebhookView.as_view()

urlpatterns = [
    re_path(r"^webhook/(?P<strategy>[^/]{1,63})/?$", webhook, name="webhook"),
    re_path(r"^webhook/(?P<strategy>[^/]{1,63})/(?P<token>[^/]{1,200})/?$", webhook),
    path("admin/", admin.site.urls),
]
