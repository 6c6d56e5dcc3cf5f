"""How much one client may ask for: a bucket of tokens each, in bounded memory."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["RateLimit"]


class RateLimit:
    """Allows each client ``per_second`` requests on average and ``burst`` at once."""

    def __init__(
        self, per_second: float, burst: int, *, clients: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.per_second = per_second
        self.burst = burst
        self._clients = clients
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allow(self, client: str, cost: int = 1) -> bool:
        """Take ``cost`` tokens from a client's bucket, or tell that it holds too few."""
        now = self._clock()
        with self._lock:
            held, since = self._tokens.pop(client, (float(self.burst), now))
            held = min(float(self.burst), held + (now - since) * self.per_second)
            enough = held >= cost
            self._tokens[client] = (held - cost if enough else held, now)
            while len(self._tokens) > self._clients:
                self._tokens.popitem(last=False)
        return enough
