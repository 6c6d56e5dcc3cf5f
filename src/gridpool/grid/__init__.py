"""Feeders, power flow, served power and outages."""
