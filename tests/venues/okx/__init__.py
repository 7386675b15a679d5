"""OKX, REST v5: spot and linear perpetuals of a trading account, as its documentation says."""
