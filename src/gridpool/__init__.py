"""Pool spectrum, 5G network slices and energy on a consortium ledger, and know beforehand what the pool is worth."""

from gridpool.version import __version__

__all__ = ["__version__"]
