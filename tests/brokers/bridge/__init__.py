"""The bridge agent and its drivers."""
