"""Second factors, recovery codes, and sessions that were ended."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models


class SecondFactor(models.Model):
    """A person's key for one-time codes, encrypted and bound to them."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="second_factor"
    )
    sealed = models.TextField(editable=False)
    is_confirmed = models.BooleanField(default=False)
    last_step = models.BigIntegerField(
        default=0, help_text="The latest code used: none works twice."
    )
    failures = models.PositiveIntegerField(default=0)
    locked_until = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"second factor of {self.user}"


class SignOut(models.Model):
    """When a person was last signed out everywhere: tokens made before are not renewed."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="sign_out"
    )
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.user} at {self.at}"


class RecoveryCode(models.Model):
    """A code that opens once when the telephone is lost. Only its digest is stored."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="recovery_codes"
    )
    digest = models.CharField(max_length=64, editable=False)
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["user", "digest"], name="recovery_code_once")
        ]

    def __str__(self) -> str:
        return f"recovery code of {self.user}"
