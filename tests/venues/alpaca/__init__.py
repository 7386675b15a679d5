"""An imitation of Alpaca: shares and crypto of one account."""
