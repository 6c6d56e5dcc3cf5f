"""Places where tests let a node die, named by the environment variable ``GRIDPOOL_FAIL_AT``.

``GRIDPOOL_FAIL_AT=store.write.filled:3`` kills the process the third time it gets there, as a power cut would.
"""

import os
import signal

__all__ = ["reach"]

_name, _, _count = os.environ.get("GRIDPOOL_FAIL_AT", "").partition(":")
_left = int(_count) if _count.isdigit() else 1


def reach(place: str) -> None:
    """Die here if the environment says so."""
    global _left  # noqa: PLW0603 (counts the visits of this process)
    if place == _name:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
