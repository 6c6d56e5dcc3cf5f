"""The errors that gridpool raises on purpose, each tied to what a user should do next.

Commands turn them into one line on standard error and an exit code: ``RefusedInput`` 1, ``VerificationFault`` 3.
"""

__all__ = ["AlteredState", "GridpoolError", "MissingComponent", "RefusedInput", "VerificationFault"]


class GridpoolError(Exception):
    """Base of every error that gridpool raises on purpose."""


class RefusedInput(GridpoolError, ValueError):
    """Input that is refused whole; the message says what was wrong, where, and what to do."""


class MissingComponent(RefusedInput):
    """An optional component (an engine, a package extra) is not on this machine; the message says how to get it."""


class VerificationFault(GridpoolError):
    """A verification found that stored or presented data is not what the ledger committed to."""


class AlteredState(VerificationFault):
    """A node's stored state is not what the chain made; the node must not take part until it is restored."""
