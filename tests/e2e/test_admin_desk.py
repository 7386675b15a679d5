"""What an operator does at the desk: a question tells the consequence, the page says what became of it,
and the database has it.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from execution.models import (
    Adoption,
    Difference,
    Order,
    Position,
    Protection,
    QuarantinedBody,
    Signal,
)
from execution.states import OrderState
from fks_site import roles
from risk import breakers
from risk.models import CircuitBreaker, TradingState
from tests.e2e import rows
from tests.e2e.browser import PageFor, person
from tests.e2e.pressing import action, answer, list_of, open_menu, page_of, recorded, told
from tests.factories import (
    OrderFactory,
    PositionFactory,
    SignalFactory,
    UserFactory,
    webhook,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

WHY = "a strange night"


@pytest.mark.core
@pytest.mark.drives("execution_order_ask_venue", "execution_order_cancel")
def test_an_order_is_asked_about_and_canceled(page_for: PageFor, complaints: list[str]) -> None:
    order = OrderFactory.create(state=OrderState.OPEN)
    page = page_for(person("olga", roles.OPERATOR))
    page.goto(list_of(Order))
    open_menu(page, order.account.name)
    answer(
        page,
        action(order, "ask_venue"),
        says="A worker asks for this order by its ids and books what the venue says.",
        button="Ask now",
        reason=WHY,
    )
    told(page, "A worker asks the venue; the journal shows the answer.")
    assert recorded("order.asked_about") == ("olga", WHY)
    answer(
        page,
        action(order, "cancel"),
        says="An order at the venue may still fill before its cancel arrives.",
        button="Cancel the order",
        reason=WHY,
    )
    told(page, "The cancel is on its way; the journal shows how it ends.")
    order.refresh_from_db()
    assert (order.cancel_asked_by, order.cancel_reason) == ("olga", "CANCELED_BY_OPERATOR")
    assert recorded("order.cancel_asked") == ("olga", WHY)
    assert complaints == []


@pytest.mark.drives("execution_order_adopt", "take_adoption")
def test_a_lost_order_is_adopted(page_for: PageFor, complaints: list[str]) -> None:
    order = OrderFactory.create(state=OrderState.NEEDS_OPERATOR, unknown_since=timezone.now())
    page = page_for(person("olga", roles.OPERATOR))
    page.goto(reverse("admin:unknown_desk"))
    answer(
        page,
        action(order, "adopt"),
        says="nothing is taken over before you say so",
        button="Ask the venue",
        broker_order_id="V77",
        reason=WHY,
    )
    told(page, "A worker asks")
    adoption = Adoption.objects.get()
    assert (adoption.broker_order_id, adoption.asked_by) == ("V77", "olga")
    told_by_the_venue = {"symbol": order.symbol, "side": "sell", "quantity": "0.01"}
    Adoption.objects.update(state=Adoption.State.FOUND, told=told_by_the_venue)
    said = page.get_by_role("region", name="What the venue says")
    expect(said.get_by_role("row", name="side")).to_contain_text("(another)")
    page.get_by_role("button", name="Take it over").click()
    told(page, "A worker asks once more and takes it over.")
    adoption.refresh_from_db()
    assert adoption.state == Adoption.State.TAKING
    Adoption.objects.update(state=Adoption.State.TAKEN)
    told(page, "The order's journal has the evidence.")
    assert complaints == []


@pytest.mark.drives(
    "execution_difference_compare",
    "execution_difference_adopt",
    "execution_difference_ignore",
    "execution_difference_flatten",
    "execution_difference_cancel",
)
def test_differences_are_resolved(page_for: PageFor, complaints: list[str]) -> None:
    symbols = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
    held = PositionFactory.create(symbol=symbols[0])
    orders = [OrderFactory.create(account=held.account, symbol=symbol) for symbol in symbols]
    adopted, ignored, flattened = (rows.foreign_position(order) for order in orders)
    canceled = rows.foreign_order(orders[0])
    page = page_for(person("olga", roles.OPERATOR))
    page.goto(list_of(Difference))
    answer(
        page,
        reverse("admin:execution_difference_compare"),
        says="nothing is changed at the venue",
        button="Compare now",
    )
    told(page, "A worker compares it now")
    assert recorded("account.compare_asked")[0] == "olga"
    for row, name, says, state in (
        (adopted, "adopt", "Our position becomes what the venue says.", "adopted"),
        (ignored, "ignore", "Entries in this symbol pass again", "ignored"),
        (flattened, "flatten", "A market order closes at the venue", "flattening"),
        (canceled, "cancel", "Somebody else placed this order.", "canceling"),
    ):
        page.goto(page_of(row))
        answer(page, action(row, name), says=says, button=name.capitalize(), reason=WHY)
        told(page, f": {Difference.State(state).label}.")
        row.refresh_from_db()
        assert (row.state, row.resolved_by, row.reason) == (state, "olga", WHY)
        assert recorded(f"difference.{state}") == ("olga", WHY)
    assert Position.objects.get().quantity == Decimal("0.03")
    assert complaints == []


@pytest.mark.drives(
    "execution_protection_guard_again", "risk_circuitbreaker_trip", "risk_circuitbreaker_reset"
)
def test_a_stop_is_tried_again_and_a_breaker_thrown(
    page_for: PageFor, complaints: list[str]
) -> None:
    entry = OrderFactory.create(state=OrderState.FILLED)
    naked, breaker = rows.naked_protection(entry), breakers.of_account(entry.account_id)
    page = page_for(person("olga", roles.OPERATOR))
    page.goto(list_of(Protection))
    open_menu(page, entry.symbol)
    answer(
        page,
        action(naked, "guard_again"),
        says="The stop is tried at the venue again",
        button="Guard",
        reason=WHY,
    )
    told(page, "The stop is tried again within seconds.")
    naked.refresh_from_db()
    assert naked.guard_again_at is not None
    assert recorded("protection.guard_again") == ("olga", WHY)
    for name, says, state, kind in (
        ("trip", "No order is sent until it is reset", "open", "breaker.tripped"),
        ("reset", "entries included", "closed", "breaker.reset"),
    ):
        page.goto(list_of(CircuitBreaker))
        open_menu(page, breaker.name)
        answer(page, action(breaker, name), says=says, button=name.capitalize(), reason=WHY)
        told(page, f"{name.capitalize()} of the breaker of {breaker.name}: done.")
        breaker.refresh_from_db()
        assert breaker.state == state
        assert recorded(kind) == ("olga", WHY)
    assert complaints == []


@pytest.mark.drives("decide_approval reject")
def test_an_order_that_waits_is_rejected(page_for: PageFor, complaints: list[str]) -> None:
    order = OrderFactory.create(
        state=OrderState.AWAITING_APPROVAL, approve_by=timezone.now() + timedelta(minutes=10)
    )
    page = page_for(person("olga", roles.OPERATOR))
    page.goto(reverse("admin:approvals"))
    address = reverse("admin:decide_approval", args=[order.pk, "reject"])
    answer(page, address, says="It ends here and is not sent.", button="Reject", reason=WHY)
    told(page, ": rejected.")
    told(page, "Nothing waits for a person")
    order.refresh_from_db()
    assert order.state == OrderState.DENIED
    assert recorded("order.rejected") == ("olga", WHY)
    assert complaints == []


MODES = (
    ("reduce_only", "Trading is reduce only", "reducing"),
    ("halt", "Trading is halted", "halted"),
    ("cancel_all", "Trading is halted", "halted"),
    ("flatten", "Trading is halted", "halted"),
    ("resume", "Trading is active", "active"),
)


@pytest.mark.core
@pytest.mark.drives(*(f"trading {mode}" for mode, _, _ in MODES))
def test_trading_is_switched_every_way(page_for: PageFor, complaints: list[str]) -> None:
    page = page_for(person("rita", roles.RISK_OFFICER))
    for mode, heading, state in MODES:
        page.goto(f"{reverse('admin:trading')}?mode={mode}")
        expect(page.locator(f"[name=mode][value={mode}]")).to_be_checked()
        told(page, "In force for every order not yet sent as soon as you confirm.")
        page.locator("[name=reason]").fill(f"{WHY}: {mode}")
        page.get_by_role("button", name="Switch", exact=True).click()
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
        row = TradingState.objects.get()
        assert (row.state, row.changed_by, row.reason) == (state, "rita", f"{WHY}: {mode}")
    assert complaints == []


@pytest.mark.drives(
    "execution_signal_replay",
    "execution_quarantinedbody_try_again",
    "execution_quarantinedbody_accept",
)
def test_alerts_are_tried_again_and_one_is_let_in(page_for: PageFor, complaints: list[str]) -> None:
    strategy, _ = webhook()
    alert = '{"symbol": "BTC/USDT", "action": "buy", "quantity": "0.01"}'
    signal = SignalFactory.create(strategy=strategy, body=alert)
    kept = QuarantinedBody.objects.create(
        strategy=strategy,
        received_at=timezone.now(),
        body=alert.replace("BTC", "ETH"),
        code="UNREADABLE",
        detail="a format of yesterday",
    )
    page = page_for(UserFactory.create(username="sue", is_superuser=True))
    for row, name in ((signal, "replay"), (kept, "try_again")):
        page.goto(page_of(row))
        page.locator(f'a[href="{action(row, name)}"]:visible').click()
        told(page, "A dry run under today's settings: nothing was stored or sent.")
        expect(page.get_by_role("heading", name="1 of 1 orders would be sent")).to_be_visible()
    page.goto(page_of(kept))
    answer(
        page,
        action(kept, "accept"),
        says="fresh, it trades like any other",
        button="Accept it",
        reason=WHY,
    )
    expect(page.get_by_role("heading", name="buy ETH/USDT", level=2)).to_be_visible()
    assert Signal.objects.exclude(pk=signal.pk).get().symbol == "ETH/USDT"
    assert recorded("quarantine.accepted") == ("sue", WHY)
    assert complaints == []
