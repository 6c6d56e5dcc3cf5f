"""Clearing and pricing mathematics, exact in integers."""
