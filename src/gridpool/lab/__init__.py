"""Latency, security and consensus models."""
