"""The canonical body: TradingView-shaped alerts as files, then field by field."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from brokers.types import OrderType, TimeInForce
from execution.alerts import Action, Alert, MarketPosition, TakeProfit
from execution.formats import FORMATS, fks
from execution.parsing import MISSING, Unreadable, parse_object
from execution.schema import Invalid
from risk.types import QuantityType

PAYLOADS = Path(__file__).parents[1] / "payloads" / "fks"
FIRED = datetime(2026, 3, 2, 14, 5, 7, tzinfo=UTC)
PLAIN = Alert(symbol="BTCUSDT", action=Action.BUY, quantity=Decimal("0.01"))

READ = {
    "price_alert": Alert(
        symbol="BINANCE:BTCUSDT",
        action=Action.BUY,
        quantity=Decimal("0.01"),
        price=Decimal("60123.45"),
        sent_at=FIRED,
        extras={
            "open": Decimal(60100),
            "high": Decimal("60150.5"),
            "low": Decimal("60090.01"),
            "volume": Decimal("12.34567"),
            "bar_time": "2026-03-02T14:04:00Z",
            "interval": "1",
        },
    ),
    "strategy_order": Alert(
        symbol="COINBASE:ETHUSD",
        action=Action.SELL,
        quantity=Decimal("2.5"),
        price=Decimal("2987.1"),
        sent_at=FIRED,
        idempotency_key="Long TP 2026-03-02T14:05:07Z",
        comment="Long TP",
        market_position=MarketPosition.LONG,
        market_position_size=Decimal("1.5"),
        prev_market_position=MarketPosition.LONG,
        prev_market_position_size=Decimal(4),
        extras={"position_size": "-1.5"},
    ),
    "strategy_flat": Alert(
        symbol="BTCUSDT",
        action=Action.SELL,
        quantity=Decimal("0.02"),
        market_position=MarketPosition.FLAT,
        market_position_size=Decimal(0),
        prev_market_position=MarketPosition.LONG,
        sent_at=FIRED,
    ),
    "plots": Alert(
        symbol="BTCUSDT",
        action=Action.BUY,
        quantity=Decimal("0.01"),
        stop_loss=Decimal("37774.433333333334"),
        comment="rsi 61.018",
        extras={"plot_1": Decimal("61.018")},
    ),
    "symbol_info": Alert(
        symbol="AAPL",
        action=Action.BUY,
        quantity=Decimal(10),
        extras={"currency": "USD", "base_currency": "na", "exchange": "NASDAQ"},
    ),
    "trailing_newline": PLAIN,
    "byte_order_mark": PLAIN,
    "crlf": Alert(symbol="BTCUSDT", action=Action.SELL, quantity=Decimal("0.01")),
    "alert_message": Alert(
        symbol="BTCUSDT",
        action=Action.CLOSE,
        comment="line 1\nline 2",
        extras={"message": '{"note": "50% – café"}'},
    ),
}
INVALID = {
    "plot_without_value": [("stop_loss", "INVALID")],
    "not_a_strategy_alert": [("action", "INVALID"), ("quantity", "NUMBER_INVALID")],
}
UNREADABLE = {"quote_in_comment": "NOT_JSON"}


def payload(name: str) -> dict[str, Any]:
    document = parse_object((PAYLOADS / f"{name}.json").read_bytes())
    assert document.pop("secret") == "TOKEN"
    return document


def complaints(document: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        fks.parse(document)
    return [(error["field"], error["code"]) for error in caught.value.errors]


def alert_with(**fields: Any) -> Alert:
    return fks.parse({"symbol": "BTC/USDT", "action": "buy", **fields})


def complaints_with(**fields: Any) -> list[tuple[str, str]]:
    return complaints({"symbol": "BTC/USDT", "action": "buy", **fields})


@pytest.mark.parametrize(("name", "alert"), READ.items(), ids=READ)
def test_payloads_that_are_read(name: str, alert: Alert) -> None:
    assert fks.parse(payload(name)) == alert


@pytest.mark.parametrize(("name", "errors"), INVALID.items(), ids=INVALID)
def test_payloads_that_are_invalid(name: str, errors: list[tuple[str, str]]) -> None:
    assert complaints(payload(name)) == errors


@pytest.mark.parametrize(("name", "code"), UNREADABLE.items(), ids=UNREADABLE)
def test_payloads_that_cannot_be_read(name: str, code: str) -> None:
    with pytest.raises(Unreadable) as caught:
        payload(name)

    assert caught.value.code == code


def test_every_payload_has_its_expectation() -> None:
    assert {path.stem for path in PAYLOADS.iterdir()} == {*READ, *INVALID, *UNREADABLE}


def test_an_alert_with_only_what_is_required() -> None:
    assert fks.parse({"symbol": "BTC/USDT", "action": "close"}) == Alert(
        symbol="BTC/USDT",
        action=Action.CLOSE,
        order_type=OrderType.MARKET,
        quantity_type=QuantityType.BASE,
        time_in_force=TimeInForce.GTC,
    )


def test_everything_that_is_wrong_is_listed_at_once() -> None:
    document = {"quantity": Decimal(0), "price": "x", "post_only": "maybe", "timestamp": "soon"}

    assert complaints(document) == [
        ("symbol", "REQUIRED"),
        ("action", "REQUIRED"),
        ("quantity", "NOT_POSITIVE"),
        ("price", "NUMBER_INVALID"),
        ("post_only", "INVALID"),
        ("timestamp", "INVALID"),
    ]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (Decimal(0), "NOT_POSITIVE"),
        (Decimal("-0.5"), "NOT_POSITIVE"),
        ("-1", "NOT_POSITIVE"),
        ("1_000", "NUMBER_INVALID"),
        ("١٢٣", "NUMBER_INVALID"),
        ("NaN", "NUMBER_INVALID"),
        ("5 BTC", "NUMBER_INVALID"),
        ("1e400", "NUMBER_OUT_OF_BOUNDS"),
        (MISSING, "INVALID"),
        ("", "INVALID"),
        (" ", "INVALID"),
        (True, "INVALID"),
        ([], "INVALID"),
        ({"value": Decimal(1)}, "INVALID"),
    ],
)
def test_what_is_no_quantity(value: Any, code: str) -> None:
    assert complaints_with(quantity=value) == [("quantity", code)]


@pytest.mark.parametrize("value", ["5", " 5 ", "5.0", "5e0", Decimal(5)])
def test_quantities_as_text_or_token(value: Any) -> None:
    assert alert_with(quantity=value).quantity == 5


@pytest.mark.parametrize("value", [MISSING, "NaN", "null", "na", "None", "{{plot_2}}", "", " "])
class TestWhatTradingViewLeavesWithoutAValue:
    def test_is_a_missing_confidence(self, value: Any) -> None:
        assert alert_with(confidence=value).confidence is None

    def test_is_no_idempotency_key(self, value: Any) -> None:
        assert alert_with(id=value).idempotency_key == ""

    @pytest.mark.parametrize("field", ["quantity", "price", "stop_loss", "take_profit"])
    def test_is_no_number_of_an_entry(self, value: Any, field: str) -> None:
        assert [name for name, _ in complaints_with(**{field: value})] == [field]

    @pytest.mark.parametrize("field", ["price", "stop_loss", "take_profit", "trailing_percent"])
    @pytest.mark.parametrize("action", ["close", "cancel"])
    def test_does_not_keep_a_position_from_being_closed(
        self, value: Any, field: str, action: str
    ) -> None:
        document = {"symbol": "BTC/USDT", "action": action}
        assert fks.parse(document | {field: value}) == fks.parse(document)

    @pytest.mark.parametrize("field", ["quantity", "price", "stop_loss", "take_profit"])
    def test_does_not_keep_a_position_from_being_made_flat(self, value: Any, field: str) -> None:
        """How a strategy's exits come from TradingView: sold, and flat afterwards."""
        document = {"symbol": "BTC/USDT", "action": "sell", "market_position": "flat"}
        assert fks.parse(document | {field: value}) == fks.parse(document)

    @pytest.mark.parametrize("field", ["prev_market_position", "prev_market_position_size"])
    def test_is_not_compared(self, value: Any, field: str) -> None:
        """Where the sender was is compared with our book and never traded on."""
        assert alert_with(**{field: value}) == alert_with()

    def test_is_no_size_of_a_close(self, value: Any) -> None:
        assert [
            name for name, _ in complaints({"symbol": "x", "action": "close", "quantity": value})
        ] == ["quantity"]


@pytest.mark.parametrize("value", ["0", Decimal(0)])
def test_a_stop_of_zero_is_none_where_nothing_is_opened(value: Any) -> None:
    flat = {"symbol": "BTC/USDT", "action": "sell", "market_position": "flat"}
    assert fks.parse(flat | {"stop_loss": value}) == fks.parse(flat)
    targets = [{"price": value, "percent": "50"}]
    assert fks.parse(flat | {"take_profit": targets}) == fks.parse(flat)
    assert complaints_with(stop_loss=value) == [("stop_loss", "NOT_POSITIVE")]


def test_an_unfilled_placeholder_is_no_symbol_and_no_action() -> None:
    document = {"symbol": "{{ticker}}", "action": "{{strategy.order.action}}"}
    assert complaints(document) == [("symbol", "REQUIRED"), ("action", "INVALID")]


def test_null_is_absent() -> None:
    assert alert_with(quantity=None, price=None, comment=None, take_profit=None) == alert_with()


@pytest.mark.parametrize("value", [Decimal("1.01"), Decimal("-0.01"), "2", True])
def test_confidence_beyond_its_range(value: Any) -> None:
    assert [field for field, _ in complaints_with(confidence=value)] == ["confidence"]


@pytest.mark.parametrize("value", ["0", "0.6", "1"])
def test_confidence(value: str) -> None:
    assert alert_with(confidence=value).confidence == Decimal(value)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-03-02T14:05:07Z", FIRED),
        ("2026-03-02T16:05:07+02:00", FIRED),
        ("2026-03-02T14:05:07", FIRED),
        (" 1772460307 ", FIRED),
        (Decimal(1772460307), FIRED),
        (Decimal(1772460307000), FIRED),
        ("1772460307.5", FIRED.replace(microsecond=500_000)),
        (None, None),
        ("", None),
        (MISSING, None),
    ],
)
def test_timestamps(value: Any, moment: datetime | None) -> None:
    assert alert_with(timestamp=value).sent_at == moment


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("now", "INVALID"),
        ("{{timenow}}", "INVALID"),
        ("1772460307s", "INVALID"),
        ("١٧٧٢٤٦٠٣٠٧", "INVALID"),
        (True, "INVALID"),
        ([], "INVALID"),
        ("9" * 30, "INVALID"),
        ("0001-01-01T00:00:00+14:00", "INVALID"),
        (Decimal(0), "OUT_OF_RANGE"),
        (Decimal(-5), "OUT_OF_RANGE"),
        (Decimal(99_999_999_999), "OUT_OF_RANGE"),
        (Decimal(999_999_999_999_999_999), "INVALID"),
        ("1999-12-31", "OUT_OF_RANGE"),
    ],
)
def test_what_is_no_time(value: Any, code: str) -> None:
    assert complaints_with(timestamp=value) == [("timestamp", code)]


def test_take_profit_targets() -> None:
    targets = [
        {"price": "61000", "percent": Decimal(60)},
        {"price": Decimal(62000), "percent": "40"},
    ]

    assert alert_with(take_profit=targets).take_profit == (
        TakeProfit(Decimal(61000), Decimal(60)),
        TakeProfit(Decimal(62000), Decimal(40)),
    )
    assert alert_with(take_profit="61000").take_profit == (
        TakeProfit(Decimal(61000), Decimal(100)),
    )
    assert alert_with(take_profit=[]).take_profit == ()


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        (MISSING, ["take_profit"]),
        ("", ["take_profit"]),
        (Decimal(0), ["take_profit"]),
        ({"price": "1", "percent": "100"}, ["take_profit"]),
        (["61000"], ["take_profit[0]"]),
        ([{"price": "61000"}], ["take_profit[0]"]),
        ([{"price": MISSING, "percent": "100"}], ["take_profit[0]"]),
        ([{"price": "x", "percent": "100"}], ["take_profit[0].price", "take_profit[0]"]),
        ([{"price": "1", "percent": "60"}] * 2, ["take_profit"]),
        ([{"price": "1", "percent": "50.006"}] * 2, ["take_profit"]),
        ([{"price": "1", "percent": percent} for percent in ("100.001", "0.001")], ["take_profit"]),
        ([{"price": "1", "percent": "1"}] * 11, ["take_profit"]),
    ],
)
def test_what_is_no_take_profit(value: Any, fields: list[str]) -> None:
    assert [field for field, _ in complaints_with(take_profit=value)] == fields


@pytest.mark.parametrize(
    ("percents", "read"),
    [
        (["33.333333333333336"] * 3, ["33.333333333333336"] * 2 + ["33.333333333333328"]),
        (["50.005"] * 2, ["50.005", "49.995"]),
        (["100.01"], ["100"]),
        (["33.33"] * 3, ["33.33"] * 3),
    ],
)
def test_the_last_target_takes_the_rest_of_rounded_percents(
    percents: list[str], read: list[str]
) -> None:
    targets = [{"price": "61000", "percent": Decimal(one)} for one in percents]

    found = alert_with(take_profit=targets).take_profit

    assert [one.percent for one in found] == [Decimal(one) for one in read]


COMPUTED = {
    "0.0014705882352941176": "0.001470588235294117",
    "1.2345678901234568e-05": "0.000012345678901234",
}


@pytest.mark.parametrize(("token", "number"), COMPUTED.items())
def test_numbers_as_programs_compute_them(token: str, number: str) -> None:
    body = '{"symbol": "BTC/USDT", "action": "sell", "reduce_only": true, "quantity": %s}'

    for written in (token, f'"{token}"'):
        assert fks.parse(parse_object((body % written).encode())).quantity == Decimal(number)


def test_a_number_out_of_bounds_is_wrong_in_its_own_field_only() -> None:
    body = b'{"symbol": "x", "action": "buy", "quantity": 1e-19, "stop_loss": 1e19, "volume": 1e19}'
    assert complaints(parse_object(body)) == [
        ("quantity", "NUMBER_OUT_OF_BOUNDS"),
        ("stop_loss", "NUMBER_OUT_OF_BOUNDS"),
    ]
    alert = fks.parse(parse_object(body.replace(b"buy", b"close").replace(b"1e-19", b"1e-18")))
    assert (alert.quantity, alert.stop_loss) == (Decimal("1e-18"), None)
    assert alert.extras == {"volume": "1e19"}


ENDS = (
    {"action": "close"},
    {"action": "cancel"},
    {"action": "sell", "market_position": "flat"},
)


@pytest.mark.parametrize("ends", ENDS, ids=["close", "cancel", "flat"])
@pytest.mark.parametrize(
    "spoiled",
    [
        *({"timestamp": one} for one in ("{{timenow}}", "NaN", "null", True, Decimal(0), "9" * 30)),
        *({"id": one} for one in ("x" * 151, True, [], {})),
    ],
)
def test_nothing_open_stays_open_over_its_time_or_its_name(
    ends: dict[str, Any], spoiled: dict[str, Any]
) -> None:
    document = {"symbol": "BTC/USDT", **ends}
    assert fks.parse(document | spoiled) == fks.parse(document)
    assert complaints_with(**spoiled)


@pytest.mark.parametrize(
    ("order_type", "missing"),
    [
        ("limit", ["price"]),
        ("stop", ["stop_price"]),
        ("stop_limit", ["price", "stop_price"]),
        ("trailing_stop", ["trailing_percent"]),
        ("market", []),
    ],
)
def test_order_types_need_their_prices(order_type: str, missing: list[str]) -> None:
    given = dict.fromkeys(("price", "stop_price", "trailing_percent"), "50")

    assert alert_with(order_type=order_type, **given).order_type == OrderType(order_type)
    if missing:
        expected = [(name, "REQUIRED") for name in missing]
        assert complaints_with(order_type=order_type) == expected
    assert fks.parse({"symbol": "x", "action": "close", "order_type": order_type})


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        (True, True),
        (False, False),
        ("true", True),
        (" FALSE ", False),
        (Decimal(1), True),
        (Decimal(0), False),
        (" 1 ", True),
        ("0", False),
        (None, False),
        ("", False),
    ],
)
def test_flags(value: Any, flag: bool) -> None:
    alert = alert_with(post_only=value, reduce_only=value)

    assert (alert.post_only, alert.reduce_only) == (flag, flag)


@pytest.mark.parametrize("value", [Decimal(2), "2", "yes", []])
def test_what_is_no_flag(value: Any) -> None:
    assert complaints_with(reduce_only=value) == [("reduce_only", "INVALID")]


@pytest.mark.parametrize(("field", "length"), [("symbol", 60), ("id", 150), ("comment", 1000)])
def test_texts_have_their_length(field: str, length: int) -> None:
    assert alert_with(**{field: "x" * length})
    assert complaints_with(**{field: "x" * (length + 1)}) == [(field, "INVALID")]


def test_texts_may_come_as_numbers_and_nothing_else() -> None:
    assert alert_with(id=Decimal("1e3")).idempotency_key == "1000"
    assert complaints_with(id=True) == [("id", "INVALID")]
    assert complaints_with(symbol={}) == [("symbol", "INVALID")]


def test_unknown_fields_are_kept_and_nothing_else_can_be_set() -> None:
    alert = alert_with(account="live", extras={"a": "b"}, sent_at="now", plot=MISSING)

    assert alert.extras == {"account": "live", "extras": {"a": "b"}, "sent_at": "now"}
    assert alert == alert_with(**alert.extras)
    assert (alert.sent_at, alert.idempotency_key) == (None, "")


PLACEHOLDERS: dict[str, tuple[str, str, str, Any]] = {
    "{{ticker}}": ("symbol", "BTCUSDT.P", "symbol", "BTCUSDT.P"),
    "{{exchange}}": ("symbol", "CME_MINI_DL:ES1!", "symbol", "CME_MINI_DL:ES1!"),
    "{{close}}": ("price", "60123.45", "price", Decimal("60123.45")),
    "{{plot_0}}": ("stop_loss", "37774.433333333334", "stop_loss", Decimal("37774.433333333334")),
    "{{timenow}}": ("timestamp", "2026-03-02T14:05:07Z", "sent_at", FIRED),
    "{{strategy.order.action}}": ("action", "SELL", "action", Action.SELL),
    "{{strategy.order.contracts}}": ("quantity", "0.5", "quantity", Decimal("0.5")),
    "{{strategy.order.price}}": ("price", "2987.1", "price", Decimal("2987.1")),
    "{{strategy.order.id}}": ("id", "Long 1", "idempotency_key", "Long 1"),
    "{{strategy.order.comment}}": ("comment", "Long TP", "comment", "Long TP"),
    "{{strategy.market_position}}": (
        "market_position", "flat", "market_position", MarketPosition.FLAT,
    ),
    "{{strategy.market_position_size}}": (
        "market_position_size", "0", "market_position_size", Decimal(0),
    ),
    "{{strategy.prev_market_position}}": (
        "prev_market_position", "Long", "prev_market_position", MarketPosition.LONG,
    ),
    "{{strategy.prev_market_position_size}}": (
        "prev_market_position_size", "4", "prev_market_position_size", Decimal(4),
    ),
}  # fmt: skip
"""What each placeholder is rendered as, in which field it belongs, and what is read."""
ONLY_SHOWN = {
    "{{open}}": "60100", "{{high}}": "60150.5", "{{low}}": "60090", "{{volume}}": "12.34567",
    "{{time}}": "2026-03-02T10:00:00Z", "{{interval}}": "240", "{{syminfo.currency}}": "USDT",
    "{{syminfo.basecurrency}}": "na", "{{plot_1}}": "NaN", "{{strategy.position_size}}": "-1.5",
    "{{strategy.order.alert_message}}": '{"a": 1}',
}  # fmt: skip
"""Placeholders without a field of their own: kept and shown."""


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
def test_a_rendered_placeholder(placeholder: str) -> None:
    name, rendered, field, value = PLACEHOLDERS[placeholder]
    assert getattr(alert_with(**{name: rendered}), field) == value


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
def test_a_placeholder_nobody_filled_in_never_becomes_a_trade_of_another_kind(
    placeholder: str,
) -> None:
    """In an alert that is not a strategy's, TradingView leaves its placeholders as they are."""
    name = PLACEHOLDERS[placeholder][0]
    if name in ("id", "prev_market_position", "prev_market_position_size"):
        assert alert_with(**{name: placeholder}) == alert_with()
    elif name == "comment":
        assert alert_with(comment=placeholder) == replace(alert_with(), comment=placeholder)
    else:
        assert [field for field, _ in complaints_with(**{name: placeholder})] == [name]


@pytest.mark.parametrize("placeholder", ONLY_SHOWN)
def test_a_placeholder_without_a_field_is_kept_and_shown(placeholder: str) -> None:
    alert = alert_with(shown=ONLY_SHOWN[placeholder])
    assert alert.extras == {"shown": ONLY_SHOWN[placeholder]}
    assert alert == replace(alert_with(), extras=alert.extras)


@pytest.mark.parametrize("order_type", ["limit", "stop", "stop_limit", "trailing_stop"])
@pytest.mark.parametrize(
    "fields", [{"action": "close"}, {"action": "sell", "market_position": "flat"}]
)
def test_what_closes_goes_out_at_the_market_where_it_lacks_its_price(
    fields: dict[str, Any], order_type: str
) -> None:
    kind = {"order_type": order_type, "price": "NaN", "post_only": True}
    alert = FORMATS["fks"].alert({"symbol": "BTC/USDT"} | fields | kind)
    assert (alert.order_type, alert.price, alert.post_only) == (OrderType.MARKET, None, False)


def test_what_closes_keeps_the_price_it_has() -> None:
    limit = {"order_type": "limit", "price": "61000"}
    alert = FORMATS["fks"].alert({"symbol": "BTC/USDT", "action": "close"} | limit)
    assert (alert.order_type, alert.price) == (OrderType.LIMIT, Decimal(61000))
