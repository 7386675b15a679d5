"""The plain Django way to the same row: standard middleware, a DRF serializer, two saves by the ORM.

Run by ``python -m benchmarks.accept`` under granian, against the database of the product beside it.
"""

from __future__ import annotations

import hashlib
import hmac
import os

import django
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fks_site.settings")
settings.MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
settings.ROOT_URLCONF = __name__
django.setup()

from django.core.handlers.wsgi import WSGIHandler  # noqa: E402  (needs the apps)
from django.db import transaction  # noqa: E402
from django.urls import path  # noqa: E402
from django.utils import timezone  # noqa: E402
from rest_framework import serializers, status  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.views import APIView  # noqa: E402

from execution.models import IdempotencyKey, Signal, Strategy  # noqa: E402

KEY = os.environ["BENCH_KEY"].encode()


class SignalSerializer(serializers.Serializer[dict[str, object]]):
    symbol = serializers.CharField(max_length=60)
    action = serializers.ChoiceField(choices=["buy", "sell", "close"])
    quantity = serializers.DecimalField(max_digits=38, decimal_places=18)
    price = serializers.DecimalField(max_digits=38, decimal_places=18, required=False)
    confidence = serializers.FloatField(min_value=0, max_value=1)
    timestamp = serializers.IntegerField()
    id = serializers.CharField(max_length=64)


class Webhook(APIView):
    authentication_classes = ()
    permission_classes = ()

    def post(self, request: Request, strategy: str) -> Response:
        body = request.body
        expected = hmac.new(KEY, body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected, request.headers["X-Webhook-Signature"]):
            return Response(status=status.HTTP_401_UNAUTHORIZED)
        serializer = SignalSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        data = serializer.validated_data
        owner = Strategy.objects.get(slug=strategy)
        with transaction.atomic():
            signal = Signal.objects.create(
                strategy=owner,
                received_at=timezone.now(),
                body=body.decode(),
                alert={name: str(value) for name, value in data.items()},
                symbol=data["symbol"],
                action=data["action"],
                auth="hmac",
            )
            IdempotencyKey.objects.create(
                strategy=owner, key=f"id:{data['id']}", signal_id=signal.pk
            )
        answer = {"status": "accepted", "signal_id": str(signal.pk), "duplicate": False}
        return Response(answer, status=status.HTTP_202_ACCEPTED)


urlpatterns = [path("webhook/<slug:strategy>", Webhook.as_view())]
application = WSGIHandler()
