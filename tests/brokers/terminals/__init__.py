"""Imitations of trading terminals, and bridge agents of our own beside them."""
