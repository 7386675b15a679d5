"""An order of unknown fate that an operator found at the venue himself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from brokers.errors import NotShownError, NotSupportedError, QueryFailedError
from brokers.models import Account
from brokers.types import OrderReport, Side, VenueStatus
from execution import adopting, adoptions, commands, comparison, dispatch, reconcile, tasks
from execution.models import Adoption, Fill, Order, Position
from execution.states import OrderState
from fks_site.users import restrict
from risk import breakers
from risk.models import AuditEvent
from risk.types import ReasonCode
from tests.brokers.scripted import AT, Script, report_of, script_of, swallow, trade
from tests.execution.test_desk import with_rights
from tests.factories import FillFactory, OrderFactory, UserFactory

pytestmark = pytest.mark.django_db
S, State = OrderState, Adoption.State
D = Decimal
NAMED = "V77"
WHY = "open orders at the venue, placed at 12:00"


@pytest.fixture
def account(clock: time_machine.Coordinates, scripted: Callable[..., Account]) -> Account:
    return scripted()


@pytest.fixture
def lost(account: Account, script: Script) -> Order:
    """An order whose answer was lost."""
    order = OrderFactory.create(account=account, created_at=AT)
    script.outcomes.append(swallow)
    dispatch.run_lane(account.pk, order.symbol)
    order.refresh_from_db()
    assert order.state == S.UNKNOWN
    return order


def foreign(order: Order, *fills: Any, **changes: Any) -> OrderReport:
    """The venue's order, placed under no id of ours, that the operator means."""
    status = changes.pop("status", VenueStatus.OPEN)
    named = {"broker_order_id": NAMED, "client_order_id": "by hand"}
    return replace(report_of(order, status, *fills), **(named | changes))


def asked(order: Order, *answers: OrderReport | Exception | None) -> Adoption:
    script_of(order.account).answers.extend(answers)
    row = commands.adopt(order, NAMED, WHY)
    row.refresh_from_db()
    return row


@pytest.mark.usefixtures("eager")
def test_what_the_venue_says_is_shown_and_nothing_is_taken_over_yet(
    lost: Order, script: Script
) -> None:
    row = asked(lost, foreign(lost))
    lost.refresh_from_db()
    assert (row.state, row.code) == (State.FOUND, "")
    assert row.told == {
        "symbol": "BTC/USDT",
        "side": "buy",
        "quantity": "0.01",
        "status": "open",
        "filled": "0",
        "average_price": "",
        "client_order_id": "by hand",
    }
    assert (lost.state, lost.broker_order_id, lost.is_adopted) == (S.UNKNOWN, "", False)
    (ref,) = script.asked
    assert (ref.identity, ref.symbol, ref.broker_order_id) == ("", "BTC/USDT", NAMED)


@pytest.mark.usefixtures("eager")
def test_on_the_operators_word_its_state_and_fills_are_ours(lost: Order, script: Script) -> None:
    row = asked(lost, foreign(lost))
    part = trade("T1", "0.004")
    script.answers.append(foreign(lost, part, status=VenueStatus.PARTIALLY_FILLED))
    commands.take_over(row)
    row.refresh_from_db()
    lost.refresh_from_db()
    assert row.state == State.TAKEN
    assert (lost.state, lost.broker_order_id, lost.is_adopted) == (S.PARTIALLY_FILLED, NAMED, True)
    assert lost.filled_quantity == D("0.004")
    assert list(Fill.objects.values_list("trade_id", "order_id")) == [("T1", lost.pk)]
    assert Position.objects.get(account=lost.account).quantity == D("0.004")
    line = lost.journal.get(event="adopt")
    assert line.detail == f"the venue's order {NAMED} is this one: {WHY}"
    assert line.evidence["told"]["filled"] == "0.004"
    event = AuditEvent.objects.get(kind="order.adopted")
    assert (event.reason, event.after) == (
        WHY,
        {"state": "partially_filled", "broker_order_id": NAMED},
    )


@pytest.mark.usefixtures("eager")
def test_from_then_on_it_is_asked_for_and_cancelled_by_the_venues_id(
    lost: Order, script: Script
) -> None:
    row = asked(lost, foreign(lost), foreign(lost))
    commands.take_over(row)
    lost.refresh_from_db()
    script.asked.clear()
    script.answers.append(foreign(lost, trade("T1"), status=VenueStatus.FILLED))
    reconcile.check_order(lost)
    (ref,) = script.asked
    assert (ref.identity, ref.broker_order_id) == ("", NAMED)
    lost.refresh_from_db()
    assert (lost.state, lost.filled_quantity) == (S.FILLED, D("0.01"))


@pytest.mark.usefixtures("eager")
def test_one_that_carries_our_id_goes_on_by_it(lost: Order, script: Script) -> None:
    ours = foreign(lost, client_order_id=lost.client_order_id)
    commands.take_over(asked(lost, ours, ours))
    lost.refresh_from_db()
    assert (lost.state, lost.is_adopted, lost.broker_order_id) == (S.OPEN, False, NAMED)


@pytest.mark.usefixtures("eager")
def test_the_one_we_sent_is_a_stranger_should_it_turn_up_as_well(
    lost: Order, account: Account
) -> None:
    commands.take_over(asked(lost, foreign(lost), foreign(lost)))
    sent = report_of(lost, VenueStatus.OPEN)
    found, _ = comparison.compare(account, [sent, foreign(lost)], None, since=AT, keeps_our_id=True)
    assert [one.broker_order_id for one in found] == [sent.broker_order_id]
    Order.objects.filter(pk=lost.pk).update(state=S.CANCELED, finished_at=AT)
    reconcile._correct_ends(account, [sent], AT + timedelta(minutes=1))
    lost.refresh_from_db()
    assert (lost.state, lost.broker_order_id) == (S.CANCELED, NAMED)


@pytest.mark.usefixtures("eager")
def test_one_that_traded_is_not_taken_over_without_its_trades(lost: Order) -> None:
    """They would tell whether it is ours."""
    hidden = foreign(lost, status=VenueStatus.FILLED, filled_quantity=D("0.01"))
    row = asked(lost, hidden)
    assert (row.state, row.code) == (State.REFUSED, "VENUE_UNREACHABLE")
    assert row.detail == "the venue does not show its trades, which would tell whether it is ours"
    assert row.told["filled"] == "0.01"
    row = asked(lost, foreign(lost, trade("T1"), status=VenueStatus.FILLED), hidden)
    assert row.state == State.FOUND
    commands.take_over(row)
    row.refresh_from_db()
    lost.refresh_from_db()
    assert (row.state, lost.state, lost.is_adopted) == (State.REFUSED, S.UNKNOWN, False)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"symbol": "ETH/USDT"}, "symbol ETH/USDT, ours BTC/USDT"),
        ({"side": Side.SELL}, "side sell, ours buy"),
        ({"quantity": D("0.011")}, "quantity 0.011, ours 0.01"),
        ({"filled_quantity": D("0.02")}, "quantity 0.02, ours 0.01"),
        ({"broker_order_id": "V78"}, "id V78, ours V77"),
    ],
    ids=str,
)
def test_another_order_is_refused_with_what_differs(
    lost: Order, changes: dict[str, Any], detail: str
) -> None:
    row = asked(lost, foreign(lost, **changes))
    assert (row.state, row.code) == (State.REFUSED, ReasonCode.OTHER_ORDER)
    assert row.detail == f"the venue's order is another: {detail}"
    assert row.told["client_order_id"] == "by hand"
    with pytest.raises(commands.Conflict):
        commands.take_over(row)
    lost.refresh_from_db()
    assert lost.state == S.UNKNOWN


@pytest.mark.usefixtures("eager")
def test_less_than_we_ordered_may_be_ours(lost: Order) -> None:
    assert asked(lost, foreign(lost, quantity=D("0.008"))).state == State.FOUND


@pytest.mark.usefixtures("eager")
def test_an_order_that_traded_before_ours_was_made_is_another(lost: Order) -> None:
    early = trade("T1", at=AT - timedelta(seconds=11))
    row = asked(lost, foreign(lost, early, status=VenueStatus.FILLED))
    assert (row.code, row.detail) == (
        ReasonCode.OTHER_ORDER,
        "it traded at 2026-07-01 11:59:49, before our order was made",
    )
    late = trade("T1", at=AT - timedelta(seconds=10))
    assert asked(lost, foreign(lost, late, status=VenueStatus.FILLED)).state == State.FOUND


@pytest.mark.usefixtures("eager")
def test_a_trade_that_is_booked_elsewhere_is_not_booked_twice(
    lost: Order, account: Account
) -> None:
    other = FillFactory.create(account=account, trade_id="T1")
    row = asked(lost, foreign(lost, trade("T1"), status=VenueStatus.FILLED))
    assert row.code == ReasonCode.ALREADY_OURS
    assert row.detail == f"its trade T1 is booked on our order {other.order_id}"


def test_an_id_of_another_order_of_ours_is_refused_at_once(lost: Order, account: Account) -> None:
    OrderFactory.create(account=account, state=S.FILLED, broker_order_id=NAMED)
    elsewhere = OrderFactory.create(state=S.FILLED, broker_order_id="V88")
    assert elsewhere.account != account
    with pytest.raises(commands.Conflict) as conflict:
        commands.adopt(lost, NAMED, WHY)
    assert conflict.value.get_codes() == ReasonCode.ALREADY_OURS
    assert commands.adopt(lost, "V88", WHY).state == State.ASKED


@pytest.mark.usefixtures("eager")
def test_what_changes_between_the_two_answers_counts(lost: Order, script: Script) -> None:
    """He agreed to what he saw; the order may have become another's meanwhile."""
    row = asked(lost, foreign(lost))
    OrderFactory.create(account=lost.account, state=S.OPEN, broker_order_id=NAMED)
    script.answers.append(foreign(lost))
    commands.take_over(row)
    row.refresh_from_db()
    lost.refresh_from_db()
    assert (row.state, row.code) == (State.REFUSED, ReasonCode.ALREADY_OURS)
    assert (lost.state, lost.is_adopted, lost.broker_order_id) == (S.UNKNOWN, False, "")


@pytest.mark.usefixtures("eager")
def test_an_order_found_by_fks_itself_meanwhile_is_left_as_it_is(
    lost: Order, script: Script
) -> None:
    row = asked(lost, foreign(lost))
    script.answers.append(report_of(lost, VenueStatus.OPEN))
    reconcile.check_order(lost)
    script.answers.append(foreign(lost))
    commands.take_over(row)
    row.refresh_from_db()
    lost.refresh_from_db()
    assert (row.code, row.detail) == (ReasonCode.FATE_KNOWN, "our order is open")
    assert (lost.state, lost.broker_order_id) == (S.OPEN, f"V{lost.identity[-8:]}")


def test_a_venue_that_does_not_answer_is_asked_again_for_a_minute(
    lost: Order, script: Script, clock: time_machine.Coordinates, nudges: object
) -> None:
    script.failure = QueryFailedError("timed out")
    row = adoptions.ask(lost, NAMED, WHY)
    looks = 0
    for _ in range(70):
        for adoption_id in adoptions.due():
            tasks.adopt_order(adoption_id)
            looks += 1
        clock.shift(timedelta(seconds=1))
    row.refresh_from_db()
    assert (row.state, row.code) == (State.REFUSED, "VENUE_UNREACHABLE")
    assert row.detail == "the venue did not answer: timed out"
    assert (looks, adoptions.due()) == (13, [])


def test_an_answer_that_does_not_tell_opens_no_breaker(lost: Order, script: Script) -> None:
    row = adoptions.ask(lost, NAMED, WHY)
    script.answers.append(NotShownError("a stop has left its list"))
    adopting.carry_out(row.pk)
    row.refresh_from_db()
    assert (row.state, row.detail) == (State.ASKED, "not answered yet: a stop has left its list")
    assert breakers.of_account(lost.account_id).failures == 0


def test_a_second_worker_asks_nothing(lost: Order, script: Script) -> None:
    row = adoptions.ask(lost, NAMED, WHY)
    script.answers.append(foreign(lost))
    for _ in range(2):
        adopting.carry_out(row.pk)
    assert len(script.asked) == 1


def test_a_venue_that_cannot_look_by_its_id_says_so(lost: Order, script: Script) -> None:
    script.failure = NotSupportedError("an agent finds orders by our id")
    row = adoptions.ask(lost, NAMED, WHY)
    adopting.carry_out(row.pk)
    row.refresh_from_db()
    assert (row.state, row.code) == (State.REFUSED, "NOT_SUPPORTED")


def test_a_plugin_that_raises_has_not_answered(lost: Order, script: Script) -> None:
    script.failure = RuntimeError("secret words")
    row = adoptions.ask(lost, NAMED, WHY)
    adopting.carry_out(row.pk)
    row.refresh_from_db()
    assert (row.state, row.detail) == (
        State.ASKED,
        "not answered yet: asking failed: RuntimeError",
    )


def test_another_id_takes_the_place_of_the_first(lost: Order) -> None:
    first = adoptions.ask(lost, NAMED, WHY)
    second = adoptions.ask(lost, "V78", WHY)
    first.refresh_from_db()
    assert (first.state, second.state) == (State.REFUSED, State.ASKED)
    assert first.detail == "another order was asked about instead"


# --- in the browser -------------------------------------------------------------------------------


def address(order: Order) -> str:
    return reverse("admin:execution_order_adopt", args=[order.pk])


@pytest.mark.usefixtures("eager")
def test_the_whole_way_in_the_admin(lost: Order, script: Script, admin_client: Client) -> None:
    desk = admin_client.get(reverse("admin:unknown_desk")).content.decode()
    assert address(lost) in desk
    assert "broker_order_id" in admin_client.get(address(lost)).content.decode()
    script.answers.append(foreign(lost))
    given = {"broker_order_id": f" {NAMED} ", "reason": WHY}
    page = admin_client.post(address(lost), given, follow=True)
    row = Adoption.objects.get()
    assert page.redirect_chain[-1][0] == reverse("admin:adoption", args=[row.pk])
    assert (row.broker_order_id, row.asked_by) == (NAMED, "admin")
    text = page.content.decode()
    assert "Take it over" in text
    assert "by hand" in text
    script.answers.append(foreign(lost))
    take = reverse("admin:take_adoption", args=[row.pk])
    assert admin_client.get(take).status_code == 405
    done = admin_client.post(take, follow=True).content.decode()
    assert "Taken over." in done
    assert "Take it over" not in done
    lost.refresh_from_db()
    assert lost.state == S.OPEN
    assert lost.journal.get(event="adopt").actor == "admin"
    again = admin_client.post(address(lost), given, follow=True)
    assert "Nothing to adopt: it is open" in again.content.decode()


def test_a_reason_and_an_id_are_needed(lost: Order, admin_client: Client) -> None:
    for given in ({"broker_order_id": NAMED}, {"reason": WHY}, {"broker_order_id": " "}):
        assert admin_client.post(address(lost), given).status_code == 200
    assert not Adoption.objects.exists()


def test_the_page_asks_again_until_there_is_an_answer(lost: Order, admin_client: Client) -> None:
    row = adoptions.ask(lost, NAMED, "<b>bold</b>")
    page = admin_client.get(reverse("admin:adoption", args=[row.pk])).content.decode()
    assert 'hx-trigger="every 1s"' in page
    assert "Take it over" not in page
    assert "&lt;b&gt;bold" in page
    assert "<b>bold" not in page
    Adoption.objects.update(state=State.REFUSED, code=ReasonCode.NO_SUCH_ORDER)
    page = admin_client.get(reverse("admin:adoption", args=[row.pk])).content.decode()
    assert 'hx-trigger="every 1s"' not in page
    assert "look at the id once more" in page


@pytest.mark.usefixtures("eager")
def test_who_may_only_look_neither_asks_nor_takes_over(lost: Order) -> None:
    row = asked(lost, foreign(lost))
    viewer = with_rights("view_order")
    page, take = (reverse(f"admin:{name}", args=[row.pk]) for name in ("adoption", "take_adoption"))
    shown = viewer.get(page)
    assert shown.status_code == 200
    assert "Take it over" not in shown.content.decode()
    given = {"broker_order_id": NAMED, "reason": WHY}
    assert viewer.post(address(lost), given).status_code == 403
    assert viewer.post(take).status_code == 403
    assert with_rights("view_signal").get(page).status_code == 403
    row.refresh_from_db()
    assert row.state == State.FOUND


@pytest.mark.usefixtures("eager")
def test_another_accounts_operator_sees_nothing_of_it(lost: Order) -> None:
    row = asked(lost, foreign(lost))
    user = UserFactory.create()
    rights = Permission.objects.filter(codename__in=("view_order", "change_order"))
    user.user_permissions.set(rights)
    restrict(user, [OrderFactory.create().account], reason="another desk")
    client = Client()
    client.force_login(user, "django.contrib.auth.backends.ModelBackend")
    for name in ("adoption", "take_adoption"):
        assert client.post(reverse(f"admin:{name}", args=[row.pk])).status_code == 404
    assert client.get(address(lost)).status_code == 404
