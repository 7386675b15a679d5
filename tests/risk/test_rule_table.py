"""Every rule just under, at and just over its limit: one row each, and none may be missing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from brokers.types import OrderType, Quote, Side
from risk.book import Day, Exposure, Recent, Resting, Seen, Streak
from risk.rules import RULES
from risk.rules.conduct import may_send
from risk.types import Facts, Intent, Limit, LimitMode, ReasonCode, Size, Verdict
from tests.risk.builders import AT, FACTS, INSTRUMENT, book, facts, intent, limit

D = Decimal
BUY, SELL = intent(stop_loss=90), intent(Side.SELL, stop_loss=109)


def sized(quantity: str = "1", price: str = "100") -> Size:
    return Size(D(quantity), D(price), D(quantity) * D(price), ())


def ago(**span: int) -> datetime:
    return AT - timedelta(**span)


def quoted(bid: str, ask: str, at: datetime = AT) -> Facts:
    return facts(quote=Quote("BTC/USDT", D(bid), D(ask), D(ask), at))


def exposures(*rows: tuple[int, str, str, str, str]) -> tuple[Exposure, ...]:
    return tuple(
        Exposure(account, symbol, D(held), D(buying), D(selling))
        for account, symbol, held, buying, selling in rows
    )


def day(realised: str, unrealised: str, best: str = "0") -> Facts:
    return book(day=Day(D(realised), D(unrealised), D(best)))


PORTFOLIO = exposures(
    (1, "BTC/USDT", "100", "50", "0"),
    (1, "ETH/USDT", "-80", "0", "20"),
    (2, "BTC/USDT", "-40", "30", "0"),
    (2, "SOL/USDT", "10", "0", "0"),
)
"""Account 1: 100 + 50 long or 100, and 80 + 20 short; account 2: 40 short or 10, and 10 long."""


@dataclass(frozen=True)
class Case:
    """A limit that is just reached by ``known``; ``under`` stays below it, and ``over`` is the least
    that is too much: other facts, or another limit.
    """

    rule: str
    value: str
    known: Facts = FACTS
    over: Facts | str = ""
    under: Facts | str = ""
    order: Intent = BUY
    size: Size = field(default_factory=sized)
    parameters: dict[str, str] = field(default_factory=dict)

    def judge(self, known: Facts, value: str) -> Verdict:
        one = limit(self.rule, value, **self.parameters)
        return RULES[self.rule].judge(one, self.order, self.size, known)

    def verdict_at(self) -> Verdict:
        return self.judge(self.known, self.value)

    def verdict_over(self) -> Verdict:
        """With more than the limit allows: other facts, or a limit a little lower."""
        return self._against(self.over)

    def verdict_under(self) -> Verdict:
        """With less than the limit allows: other facts, or a limit as much higher as over is lower."""
        if self.under or not isinstance(self.over, str):
            return self._against(self.under)
        return self._against(str(2 * D(self.value) - D(self.over)))

    def _against(self, other: Facts | str) -> Verdict:
        if isinstance(other, Facts):
            return self.judge(other, self.value)
        return self.judge(self.known, other)


LIMIT_BUY = intent(type=OrderType.LIMIT, price=102)
LIMIT_SELL = intent(Side.SELL, OrderType.LIMIT, price="97.02")
CASES = [
    Case("max_order_value", "100", over="99.99"),
    Case("max_order_quantity", "1", over="0.999"),
    Case("max_capital_share", "0.01", over="0.0099"),
    Case("price_collar", "0.02", over="0.0199", order=LIMIT_BUY),
    Case("price_collar", "0.02", over="0.0199", order=LIMIT_SELL),
    Case(
        "price_collar",
        "0.01",
        over="0.009",
        order=intent(type=OrderType.STOP_LIMIT, stop_price=200, price=202),
    ),
    Case(
        "duplicate_order",
        "5",
        book(recent=(Recent(Side.BUY, D(1), None, ago(seconds=6)),)),
        book(recent=(Recent(Side.BUY, D(1), None, ago(seconds=5)),)),
        book(recent=(Recent(Side.BUY, D(1), None, ago(seconds=60)),)),
    ),
    Case(
        "duplicate_order",
        "5",
        book(recent=(Recent(Side.BUY, D(1), D("102.01"), AT), Recent(Side.SELL, D(1), D(102), AT))),
        book(recent=(Recent(Side.BUY, D(1), D(102), AT),)),
        book(recent=()),
        order=LIMIT_BUY,
    ),
    Case(
        "self_match",
        "1",
        book(resting=(Resting(Side.SELL, D("100.01")), Resting(Side.BUY, D(100)))),
        book(resting=(Resting(Side.SELL, D(100)),)),
        book(resting=(Resting(Side.SELL, D(150)),)),
    ),
    Case(
        "self_match",
        "1",
        book(resting=(Resting(Side.BUY, D("97.01")),)),
        book(resting=(Resting(Side.BUY, D("97.02")),)),
        book(resting=(Resting(Side.BUY, D(50)),)),
        order=LIMIT_SELL,
    ),
    Case(
        "max_quote_age",
        "5",
        quoted("1", "2", ago(seconds=5)),
        quoted("1", "2", ago(seconds=6)),
        quoted("1", "2", ago(seconds=4)),
    ),
    Case(
        "max_quote_age",
        "5",
        quoted("99", "100", AT + timedelta(seconds=5)),
        quoted("99", "100", AT + timedelta(seconds=6)),
        quoted("99", "100", AT + timedelta(seconds=4)),
    ),
    Case(
        "max_spread", "0.02", quoted("99", "101"), quoted("99", "101.01"), quoted("99.5", "100.5")
    ),
    Case("max_spread", "1", quoted("100", "100"), quoted("100.01", "100"), quoted("99", "100")),
    Case("max_spread", "1", quoted("1", "1"), quoted("0", "1"), quoted("1", "1.1")),
    Case(
        "max_price_jump",
        "0.1",
        replace(quoted("109", "111"), book=replace(FACTS.book, previous=Seen(D(100), ago(seconds=60)))),
        replace(quoted("109", "111.02"), book=replace(FACTS.book, previous=Seen(D(100), AT))),
        replace(quoted("104", "106"), book=replace(FACTS.book, previous=Seen(D(100), AT))),
    ),
    Case(
        "max_price_jump",
        "0.1",
        replace(quoted("109", "999"), book=replace(FACTS.book, previous=Seen(D(100), ago(seconds=61)))),
        replace(quoted("89", "90.98"), book=replace(FACTS.book, previous=Seen(D(100), AT))),
        replace(quoted("94", "96"), book=replace(FACTS.book, previous=Seen(D(100), AT))),
    ),
    Case("max_position_value", "100", over="99.99"),
    Case("max_open_orders", "3", facts(open_orders=2), facts(open_orders=3), FACTS),
    Case("max_symbol_orders", "3", book(symbol_orders=2), book(symbol_orders=3), book(symbol_orders=1)),
    Case("max_account_exposure", "350", book(exposures=PORTFOLIO), "349.99"),
    Case("max_gross_exposure", "400", book(exposures=PORTFOLIO), "399.99"),
    Case(
        "max_gross_exposure", "300", book(exposures=PORTFOLIO), "299.99",
        order=SELL, size=sized("0.1"),
    ),
    Case("max_net_exposure", "170", book(exposures=PORTFOLIO), "169.99"),
    Case(
        "max_group_exposure",
        "290",
        book(exposures=PORTFOLIO),
        "289.99",
        parameters={"symbols": "btc, doge/usdt"},
    ),
    Case("max_strategy_exposure", "250", book(strategy_exposures=PORTFOLIO[:1]), "249.99"),
    Case("max_leverage", "0.035", book(exposures=PORTFOLIO), "0.03499"),
    Case(
        "max_margin_share",
        "0.5",
        book(free_funds=D(200)),
        book(free_funds=D("199.99")),
        book(free_funds=D(201)),
    ),
    Case(
        "max_margin_share",
        "0.5",
        book(free_funds=D(40), leverage=D(5)),
        book(free_funds=D("39.99"), leverage=D(5)),
        book(free_funds=D(41), leverage=D(5)),
    ),
    Case("risk_per_trade", "0.001", over="0.0009"),
    Case("daily_loss", "100", day("-70", "-29.99"), day("-70", "-30"), day("-70", "1")),
    Case(
        "daily_loss", "100", day("-99.99", "-500"), day("-100", "500"), day("0", "-500"),
        parameters={"unrealised": "ignore"},
    ),
    Case(
        "max_drawdown", "100", day("20", "30.01", "150"), day("20", "30", "150"),
        day("20", "60", "150"),
    ),
    Case(
        "loss_streak", "3", book(losses=Streak(2, AT)), book(losses=Streak(3, AT)),
        book(losses=Streak(0, None)),
        parameters={"cool_down": "60"},
    ),
    Case(
        "loss_streak",
        "3",
        book(losses=Streak(9, ago(seconds=60))),
        book(losses=Streak(3, ago(seconds=59))),
        book(losses=Streak(3, ago(seconds=3600))),
        parameters={"cool_down": "60"},
    ),
    Case("repeated_execution", "10", book(entries_within={60: 9}), book(entries_within={60: 10}),
         book(entries_within={60: 0})),
    Case("reject_streak", "3", book(rejects=Streak(2, AT)), book(rejects=Streak(3, AT)),
         book(rejects=Streak(0, None))),
    Case(
        "trading_hours", "15", facts(at=datetime(2026, 6, 3, 16, 44, 59, tzinfo=UTC)),
        facts(at=datetime(2026, 6, 3, 16, 45, tzinfo=UTC)),
        facts(at=datetime(2026, 6, 3, 12, tzinfo=UTC)),
        parameters={"zone": "UTC", "opens": "09:00", "closes": "17:00"},
    ),
]  # fmt: skip


def named(case: Case) -> str:
    return case.rule


@pytest.mark.parametrize("case", CASES, ids=named)
def test_under_and_at_the_limit_it_passes_and_the_least_more_does_not(case: Case) -> None:
    assert case.verdict_under().passed, case.verdict_under().detail
    assert case.verdict_at().passed, case.verdict_at().detail
    denied = case.verdict_over()
    assert denied.denies, denied.detail
    assert denied.code is ReasonCode(case.rule.upper())
    assert denied.scope == "everything"


def test_every_rule_has_its_row() -> None:
    """The rate of messages is no verdict: an order over it waits (the table of it is below)."""
    assert set(RULES) - {case.rule for case in CASES} == {"message_rate"}


def test_every_rule_says_what_it_is() -> None:
    for rule in RULES.values():
        assert rule.label
        assert rule.help.endswith(".")
        assert rule.default >= rule.least
        assert ReasonCode(rule.name.upper())
        assert all(one.help for one in rule.parameters)
        assert set(rule.settings({})) == {one.name for one in rule.parameters}


@pytest.mark.parametrize("case", CASES, ids=named)
def test_what_was_not_gathered_does_not_pass(case: Case) -> None:
    if RULES[case.rule].needs - {"previous"}:
        unknown = replace(
            case.known, book=replace(FACTS.book, **dict.fromkeys(RULES[case.rule].needs))
        )
        assert case.judge(unknown, case.value).denies


@pytest.mark.parametrize(
    ("used", "warns"), [("79.99", False), ("80", True), ("100", True), ("100.01", False)]
)
def test_four_fifths_used_is_worth_a_warning(used: str, warns: bool) -> None:
    one = RULES["max_order_value"].judge(
        limit("max_order_value", 100), BUY, sized("1", used), FACTS
    )
    assert one.warns is warns


@pytest.mark.parametrize(
    ("rule", "field"), [("reject_streak", "rejects"), ("loss_streak", "losses")]
)
@pytest.mark.parametrize(("count", "warns"), [(7, False), (8, True), (9, True), (10, False)])
def test_a_streak_warns_before_it_stops_a_strategy(
    rule: str, field: str, count: int, warns: bool
) -> None:
    known = book(**{field: Streak(count, AT)})
    assert RULES[rule].judge(limit(rule, 10), BUY, sized(), known).warns is warns


@pytest.mark.parametrize(
    ("rule", "known"),
    [
        ("duplicate_order", book(recent=(Recent(Side.BUY, D(1), None, ago(seconds=-3600)),))),
        ("loss_streak", book(losses=Streak(60, ago(seconds=-7200)))),
    ],
)
def test_what_was_before_the_clock_was_set_back_is_long_ago(rule: str, known: Facts) -> None:
    assert RULES[rule].judge(limit(rule, 60), BUY, sized(), known).passed


def test_an_unreadable_parameter_denies() -> None:
    broken = Limit("repeated_execution", D(10), LimitMode.ENFORCE, "everything", {"window": "soon"})
    assert RULES["repeated_execution"].judge(broken, BUY, sized(), FACTS).denies


# --- what the table does not show -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("caps", "setting", "passes"),
    [(True, "allow", True), (True, "deny", True), (False, "allow", True), (False, "deny", False)],
)
def test_a_market_order_is_held_to_the_collar_where_the_venue_can(
    caps: bool, setting: str, passes: bool
) -> None:
    one = limit("price_collar", "0.05", market_orders=setting)
    verdict = RULES["price_collar"].judge(one, BUY, sized(), facts(caps_market_orders=caps))
    assert verdict.passed is passes


def test_a_price_on_the_passive_side_is_no_danger() -> None:
    far = intent(type=OrderType.LIMIT, price=1)
    assert RULES["price_collar"].judge(limit("price_collar", "0.01"), far, sized(), FACTS).passed


@pytest.mark.parametrize("kind", [OrderType.STOP, OrderType.STOP_LIMIT])
def test_an_order_that_waits_for_its_trigger_meets_nobody_yet(kind: OrderType) -> None:
    waiting = intent(type=kind, stop_price=120, price=121)
    known = book(resting=(Resting(Side.SELL, D(1)),))
    assert RULES["self_match"].judge(limit("self_match", 1), waiting, sized(), known).passed


def test_a_symbol_outside_the_group_passes_and_a_group_without_symbols_does_not() -> None:
    known = book(exposures=PORTFOLIO)
    judge = RULES["max_group_exposure"].judge
    assert judge(limit("max_group_exposure", 1, symbols="ETH"), BUY, sized(), known).passed
    assert judge(limit("max_group_exposure", 1000), BUY, sized(), known).denies


@pytest.mark.parametrize("named", ["BTC/USDT", "BTC", "BTCUSDT", "ETH BTCUSDT"])
def test_a_group_names_its_symbols_in_full_by_their_asset_or_in_one_word(named: str) -> None:
    judge = RULES["max_group_exposure"].judge
    known = book(exposures=PORTFOLIO)
    assert judge(limit("max_group_exposure", 1, symbols=named), BUY, sized(), known).denies


@pytest.mark.parametrize("named", ["USDT", "BTCUSD", "TCUSDT"])
def test_a_group_of_others_lets_it_pass(named: str) -> None:
    judge = RULES["max_group_exposure"].judge
    known = book(exposures=PORTFOLIO)
    assert judge(limit("max_group_exposure", 1, symbols=named), BUY, sized(), known).passed


def test_a_stored_time_that_names_an_offset_denies_and_breaks_nothing() -> None:
    verdict = RULES["trading_hours"].judge(
        limit("trading_hours", 0, opens="09:30Z"), BUY, sized(), FACTS
    )
    assert verdict.denies
    assert verdict.code is ReasonCode.TRADING_HOURS


def test_a_position_without_a_price_denies() -> None:
    known = book(exposures=(Exposure(2, "X/USDT", None, D(0), D(0)),))
    for rule in ("max_gross_exposure", "max_net_exposure"):
        assert RULES[rule].judge(limit(rule, 10**9), BUY, sized(), known).denies
    assert (
        RULES["max_account_exposure"]
        .judge(limit("max_account_exposure", 10**9), BUY, sized(), known)
        .passed
    )


def test_selling_coins_ties_up_no_funds() -> None:
    known = book(free_funds=D(0))
    judge, one = RULES["max_margin_share"].judge, limit("max_margin_share", 1)
    assert judge(one, SELL, sized(), known).passed
    margin = replace(known, instrument=replace(INSTRUMENT, market_type="swap"))
    assert judge(one, SELL, sized(), margin).denies


def test_a_days_result_without_prices_is_not_known() -> None:
    known = book(day=Day(D(5), None, D(5)))
    for rule in ("daily_loss", "max_drawdown"):
        assert RULES[rule].judge(limit(rule, 10**9), BUY, sized(), known).denies


@pytest.mark.parametrize(
    ("sent", "entry", "exit"),
    [(0, True, True), (14, True, True), (15, False, True), (19, False, True), (20, False, False)],
)
def test_messages_are_kept_for_exits_and_cancels(sent: int, entry: bool, exit: bool) -> None:
    assert may_send(D(20), D("0.25"), sent, is_exit=False) is entry
    assert may_send(D(20), D("0.25"), sent, is_exit=True) is exit


def test_an_entry_can_always_go_out_alone() -> None:
    assert may_send(D(1), D("0.25"), 0, is_exit=False)


# --- hours ----------------------------------------------------------------------------------------

NEW_YORK = {"days": "mon-fri", "opens": "09:30", "closes": "16:00", "zone": "America/New_York"}
NYSE = NEW_YORK | {"holidays": "XNYS"}
GLOBEX = {"days": "sun-thu", "opens": "17:00", "closes": "16:00", "zone": "America/Chicago"}


@pytest.mark.parametrize(
    ("parameters", "minutes", "at", "is_open"),
    [
        # Winter: New York is UTC-5
        (NEW_YORK, 0, "2026-11-20 14:29:59", False),
        (NEW_YORK, 0, "2026-11-20 14:30:00", True),
        (NEW_YORK, 0, "2026-11-20 20:59:59", True),
        (NEW_YORK, 0, "2026-11-20 21:00:00", False),
        (NEW_YORK, 15, "2026-11-20 20:44:59", True),
        (NEW_YORK, 15, "2026-11-20 20:45:00", False),
        (NEW_YORK, 0, "2026-11-21 15:00:00", False),
        # Summer: UTC-4; the clocks change on 8 March and 1 November
        (NEW_YORK, 0, "2026-03-09 13:30:00", True),
        (NEW_YORK, 0, "2026-03-06 13:30:00", False),
        (NEW_YORK, 0, "2026-10-30 13:30:00", True),
        (NEW_YORK, 0, "2026-11-02 13:30:00", False),
        # Thanksgiving, and the half day after it
        (NEW_YORK, 0, "2026-11-26 15:00:00", True),
        (NYSE, 0, "2026-11-26 15:00:00", False),
        (NYSE, 0, "2026-11-27 17:59:59", True),
        (NYSE, 0, "2026-11-27 18:00:00", False),
        # Sunday evening to the next afternoon, with an hour's pause
        (GLOBEX, 0, "2026-11-22 22:59:59", False),
        (GLOBEX, 0, "2026-11-22 23:00:00", True),
        (GLOBEX, 0, "2026-11-23 21:59:59", True),
        (GLOBEX, 0, "2026-11-23 22:00:00", False),
        (GLOBEX, 0, "2026-11-23 23:00:00", True),
        (GLOBEX, 0, "2026-11-27 23:30:00", False),
    ],
)
def test_entries_keep_to_the_trading_hours(
    parameters: dict[str, Any], minutes: int, at: str, is_open: bool
) -> None:
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    one = limit("trading_hours", minutes, **parameters)
    verdict = RULES["trading_hours"].judge(one, BUY, sized(), facts(at=moment))
    assert verdict.passed is is_open, verdict.detail
    assert verdict.code is (None if is_open else ReasonCode.TRADING_HOURS)
