"""What a test commits is gone before the next one."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType

from risk import audit
from risk.models import AuditEvent
from tests.emptying import empty_tables
from tests.factories import FillFactory, RouteFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)


def test_no_row_is_left_and_permissions_stay() -> None:
    permissions = Permission.objects.count()
    user = UserFactory.create()
    user.user_permissions.add(Permission.objects.order_by("pk")[0])
    FillFactory.create()
    RouteFactory.create()
    audit.record("strategy.changed", "a test", before={"a": 1}, after={"a": 2})
    assert AuditEvent.objects.exists()

    empty_tables()

    filled = {model for model in apps.get_models() if model._default_manager.exists()}
    assert filled == {ContentType, Permission}
    assert Permission.objects.count() == permissions > 200
