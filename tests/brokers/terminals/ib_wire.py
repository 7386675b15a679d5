"""The layout of TWS's messages at server version 178, as ib_async 2.1.0 writes and reads them.

Names are those of ib_async's client.py and decoder.py, in their order. Every field is a text that ends
in a zero byte; a message is led by its length in four bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

SERVER_VERSION = 178
CONTRACT = (
    "conId symbol secType expiry strike right multiplier exchange primaryExchange currency"
    " localSymbol tradingClass"
)
PLACE_ORDER = (
    f"message orderId {CONTRACT}"
    " secIdType secId action totalQuantity orderType lmtPrice auxPrice tif ocaGroup account"
    " openClose origin orderRef transmit parentId blockOrder sweepToFill displaySize"
    " triggerMethod outsideRth hidden sharesAllocation discretionaryAmt goodAfterTime"
    " goodTillDate faGroup faMethod faPercentage modelCode shortSaleSlot designatedLocation"
    " exemptCode ocaType rule80A settlingFirm allOrNone minQty percentOffset eTradeOnly"
    " firmQuoteOnly nbboPriceCap auctionStrategy startingPrice stockRefPrice delta"
    " stockRangeLower stockRangeUpper overridePercentageConstraints volatility volatilityType"
    " deltaNeutralOrderType deltaNeutralAuxPrice continuousUpdate referencePriceType"
    " trailStopPrice trailingPercent scaleInitLevelSize scaleSubsLevelSize scalePriceIncrement"
    " scaleTable activeStartTime activeStopTime hedgeType optOutSmartRouting clearingAccount"
    " clearingIntent notHeld deltaNeutralContract algoStrategy algoId whatIf orderMiscOptions"
    " solicited randomizeSize randomizePrice conditions adjustedOrderType triggerPrice"
    " lmtPriceOffset adjustedStopPrice adjustedStopLimitPrice adjustedTrailingAmount"
    " adjustableTrailingUnit extOperator softDollarTierName softDollarTierValue cashQty"
    " mifid2DecisionMaker mifid2DecisionAlgo mifid2ExecutionTrader mifid2ExecutionAlgo"
    " dontUseAutoPriceForHedge isOmsContainer discretionaryUpToLimitPrice usePriceMgmtAlgo"
    " duration postToAts autoCancelParent advancedErrorOverride manualOrderTime"
)
_SHOWN = (
    "conId symbol secType expiry strike right multiplier exchange currency localSymbol tradingClass"
)
_ORDERED = (
    " action totalQuantity orderType lmtPrice auxPrice tif ocaGroup account openClose origin"
    " orderRef"
)
OPEN_ORDER = (
    f"orderId {_SHOWN}{_ORDERED} clientId permId outsideRth hidden discretionaryAmt goodAfterTime"
    " sharesAllocation faGroup faMethod faPercentage modelCode goodTillDate rule80A percentOffset"
    " settlingFirm shortSaleSlot designatedLocation exemptCode auctionStrategy startingPrice"
    " stockRefPrice delta stockRangeLower stockRangeUpper displaySize blockOrder sweepToFill"
    " allOrNone minQty ocaType eTradeOnly firmQuoteOnly nbboPriceCap parentId triggerMethod"
    " volatility volatilityType deltaNeutralOrderType deltaNeutralAuxPrice continuousUpdate"
    " referencePriceType trailStopPrice trailingPercent basisPoints basisPointsType"
    " comboLegsDescrip #legs #orderLegs #params scaleInitLevelSize scaleSubsLevelSize"
    " scalePriceIncrement hedgeType optOutSmartRouting clearingAccount clearingIntent notHeld"
    " #deltaNeutral algoStrategy solicited whatIf status initMarginBefore maintMarginBefore"
    " equityWithLoanBefore initMarginChange maintMarginChange equityWithLoanChange initMarginAfter"
    " maintMarginAfter equityWithLoanAfter commission minCommission maxCommission"
    " commissionCurrency warningText randomizeSize randomizePrice #conditions adjustedOrderType"
    " triggerPrice trailStopPrice lmtPriceOffset adjustedStopPrice adjustedStopLimitPrice"
    " adjustedTrailingAmount adjustableTrailingUnit softDollarTierName softDollarTierValue"
    " softDollarTierDisplayName cashQty dontUseAutoPriceForHedge isOmsContainer"
    " discretionaryUpToLimitPrice usePriceMgmtAlgo duration postToAts autoCancelParent minTradeQty"
    " minCompeteSize competeAgainstBestOffset midOffsetAtWhole midOffsetAtHalf"
)
COMPLETED_ORDER = (
    f"{_SHOWN}{_ORDERED} permId outsideRth hidden discretionaryAmt goodAfterTime faGroup faMethod"
    " faPercentage modelCode goodTillDate rule80A percentOffset settlingFirm shortSaleSlot"
    " designatedLocation exemptCode startingPrice stockRefPrice delta stockRangeLower"
    " stockRangeUpper displaySize sweepToFill allOrNone minQty ocaType triggerMethod volatility"
    " volatilityType deltaNeutralOrderType deltaNeutralAuxPrice continuousUpdate"
    " referencePriceType trailStopPrice trailingPercent comboLegsDescrip #legs #orderLegs #params"
    " scaleInitLevelSize scaleSubsLevelSize scalePriceIncrement hedgeType clearingAccount"
    " clearingIntent notHeld #deltaNeutral algoStrategy solicited status randomizeSize"
    " randomizePrice #conditions trailStopPrice lmtPriceOffset cashQty dontUseAutoPriceForHedge"
    " isOmsContainer autoCancelDate filledQuantity refFuturesConId autoCancelParent shareholder"
    " imbalanceOnly routeMarketableToBbo parentPermId completedTime completedStatus minTradeQty"
    " minCompeteSize competeAgainstBestOffset midOffsetAtWhole midOffsetAtHalf"
)
EXECUTION = (
    f"reqId orderId {_SHOWN} execId time account venue side shares price permId clientId"
    " liquidation cumQty avgPrice orderRef evRule evMultiplier modelCode lastLiquidity"
    " pendingPriceRevision"
)
CONTRACT_DETAILS = (
    "reqId symbol secType expiry strike right exchange currency localSymbol marketName"
    " tradingClass conId minTick multiplier orderTypes validExchanges priceMagnifier underConId"
    " longName primaryExchange contractMonth industry category subcategory timeZoneId tradingHours"
    " liquidHours evRule evMultiplier #secIds aggGroup underSymbol underSecType marketRuleIds"
    " realExpirationDate stockType minSize sizeIncrement suggestedSizeIncrement"
)
POSITION = f"version account {_SHOWN} position avgCost"


def named(names: str, fields: Sequence[str]) -> dict[str, str]:
    """The fields of a request by name. Raises ValueError when there are more or fewer."""
    return dict(zip(names.split(), fields, strict=True))


def laid_out(names: str, values: Mapping[str, object]) -> list[str]:
    """The fields of an answer; a name with # counts a list that is empty here."""
    return ["0" if name.startswith("#") else str(values.get(name, "")) for name in names.split()]


def framed(*fields: object) -> bytes:
    text = "".join(f"{field}\0" for field in fields).encode()
    return struct.pack(">I", len(text)) + text
