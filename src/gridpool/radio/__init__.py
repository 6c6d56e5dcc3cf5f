"""Propagation, cells and the allocation of resource blocks."""
