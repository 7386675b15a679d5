"""What takes two people, and what waits for the second."""

from __future__ import annotations

from typing import ClassVar
from uuid import uuid4

from django.db import models


class Safeguards(models.Model):
    """The one row of rules for the people: when one of them is not enough, and how they prove it."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    two_person = models.BooleanField(
        "two-person rule",
        default=False,
        help_text="What loosens a safeguard waits for another person's approval.",
    )
    proposal_hours = models.PositiveIntegerField(
        default=24, help_text="Hours after which a proposal nobody decided on expires."
    )
    second_factor = models.BooleanField(
        "second factor required",
        default=False,
        help_text="Nobody works here without a one-time code. Who has one set up is always asked.",
    )

    class Meta:
        verbose_name_plural = "safeguards"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=models.Q(id=1), name="safeguards_are_one"),
            models.CheckConstraint(
                condition=models.Q(proposal_hours__gte=1), name="proposals_live_an_hour"
            ),
        ]

    def __str__(self) -> str:
        return "safeguards"

    @classmethod
    def current(cls) -> Safeguards:
        """The row, or what holds without one."""
        return cls.objects.first() or cls()


class Proposal(models.Model):
    """A change that waits for another person. Never edited: a new one of the same thing ends it."""

    class State(models.TextChoices):
        OPEN = "open", "open"
        APPROVED = "approved", "approved"
        REJECTED = "rejected", "rejected"
        EXPIRED = "expired", "expired"
        SUPERSEDED = "superseded", "superseded"
        OUTDATED = "outdated", "outdated"

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    kind = models.CharField(max_length=30)
    subject = models.CharField(max_length=200)
    payload = models.JSONField(help_text="What is to be done, without secrets.")
    sealed = models.TextField(blank=True, editable=False)
    before = models.JSONField()
    after = models.JSONField()
    reason = models.TextField()
    proposed_by = models.CharField(max_length=150)
    proposed_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    decided_by = models.CharField(max_length=150, blank=True)
    decided_at = models.DateTimeField(null=True)
    note = models.TextField(blank=True, help_text="What the person who decided said.")

    class Meta:
        ordering: ClassVar[list[str]] = ["-proposed_at"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["kind", "subject"],
                condition=models.Q(state="open"),
                name="one_open_proposal_of_a_thing",
            )
        ]

    def __str__(self) -> str:
        return self.subject
