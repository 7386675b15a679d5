"""An imitation of an OANDA v20 account that nets."""
