"""The older service's webhook: checks the signature and the fields, and keeps the alert in memory.

Run by ``python -m benchmarks.accept`` under uvicorn. It stores nothing: whatever kills it takes every
alert with it that has been acknowledged and not been executed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import deque
from decimal import Decimal
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Request
from pydantic import BaseModel, Field, ValidationError

KEY = os.environ["BENCH_KEY"].encode()


class Signal(BaseModel):
    symbol: str = Field(max_length=60)
    action: str = Field(pattern="^(buy|sell|close)$")
    quantity: Decimal = Field(gt=0)
    price: Decimal | None = None
    confidence: float = Field(1.0, ge=0, le=1)
    timestamp: int
    id: str


app = FastAPI()
waiting: deque[Signal] = deque(maxlen=10_000)


@app.post("/webhook/{strategy}", status_code=202)
async def webhook(
    strategy: str, request: Request, x_webhook_signature: Annotated[str, Header()]
) -> dict[str, Any]:
    body = await request.body()
    expected = hmac.new(KEY, body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, x_webhook_signature):
        raise HTTPException(401)
    try:
        signal = Signal.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(400) from error
    waiting.append(signal)
    return {"status": "accepted", "signal_id": signal.id, "duplicate": False}
