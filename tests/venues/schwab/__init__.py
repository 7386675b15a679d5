"""An imitation of Schwab's Trader API, its market data and its log-in."""
