"""Bybit, REST v5: spot and linear perpetuals of a unified account, as its documentation says."""
