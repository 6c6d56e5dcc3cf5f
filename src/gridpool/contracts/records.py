"""The records contract: encrypted data sets with grants and audit trail, and the roots of aggregators' readings.

The rules stand in ``records_data`` (data sets, grants, reads) and ``records_telemetry`` (anchored trees of readings,
differences between two of them); ``records_tree`` is the tree itself. Importing this file registers all on ``records``.
"""

from gridpool.contracts import records_data, records_telemetry, records_tree
from gridpool.contracts.records_data import records

__all__ = ["records", "records_data", "records_telemetry", "records_tree"]
