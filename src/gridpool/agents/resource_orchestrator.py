"""A party's resource orchestrator (W's RO): one protocol for every network, and a simulated network behind it.

A driver reserves, instantiates, modifies, measures and ends sub-slices in a party's own network. The simulated one
carries offered traffic over the awarded resource blocks with the radio model, and over a transport and a core queue.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from gridpool.contracts.slices.templates import Isolation
from gridpool.contracts.slices.terms import Kpis
from gridpool.radio.propagation import RadioProfile, block_rate_bps, gain, path_loss_db

__all__ = [
    "Fault",
    "Measurement",
    "OrchestratorFault",
    "ResourceOrchestrator",
    "SimulatedOrchestrator",
    "SubSliceOrder",
    "SubSliceStatus",
    "link_rates_bps",
    "queue_delays_s",
]

Floats = npt.NDArray[np.float64]
PACKET_BITS = 2_048
BUFFER_S = 0.2
"""A packet that would wait longer is dropped."""
SAMPLES = 200
NEIGHBOUR_SHARE = 0.1
"""Share of a co-channel neighbour's power that reaches a sub-slice of the same cell."""


class OrchestratorFault(Exception):
    """A network could not do what its orchestrator was asked for."""


class SubSliceOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver needs to know of an awarded sub-slice.

    ``distances_m`` and ``blocks`` are each device's distance to the gNB and its resource blocks, ``capacity_kbps`` what
    a planner computed that they carry (RAN only); ``delay_us`` and ``bandwidth_kbps`` are what was offered.
    """

    name: str
    segment: str
    bandwidth_kbps: int
    delay_us: int
    isolation: Isolation = "none"
    distances_m: tuple[float, ...] = ()
    blocks: tuple[int, ...] = ()
    capacity_kbps: int | None = None


class SubSliceStatus(msgspec.Struct, frozen=True):
    """Where a sub-slice stands in its network."""

    name: str
    state: Literal["unknown", "reserved", "running", "terminated"]


class Measurement(msgspec.Struct, frozen=True):
    """An interval's indicators and the raw samples they were computed from."""

    kpis: Kpis
    samples: tuple[bytes, ...]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A failure of a segment's network from ``start_ms`` to ``end_ms``: ``factor`` of its capacity is left.

    ``neighbour_kbps`` is traffic of somebody else on the same resources, ``lost_share`` the share of the devices that
    have no link at all.
    """

    segment: str
    start_ms: int
    end_ms: int
    factor: float = 0.0
    neighbour_kbps: int = 0
    lost_share: float = 0.0


class ResourceOrchestrator(Protocol):
    """What a driver does. Every call may raise OrchestratorFault; none waits for longer than its network takes."""

    def reserve(self, order: SubSliceOrder) -> None:
        """Set resources aside; nothing is carried yet."""

    def instantiate(self, name: str) -> bytes:
        """Bring a reserved sub-slice into service; returns where it is reached, as bytes to be hashed."""

    def modify(self, order: SubSliceOrder) -> None:
        """Change a sub-slice in service to another order of the same name."""

    def status(self, name: str) -> SubSliceStatus:
        """Say where a sub-slice stands."""

    def metrics(self, name: str, start_ms: int, end_ms: int, demand_kbps: int) -> Measurement:
        """Measure a sub-slice over an interval in which ``demand_kbps`` were asked of it."""

    def terminate(self, name: str) -> None:
        """End a sub-slice and free its resources; ending it twice is harmless."""


@dataclass
class SimulatedOrchestrator:
    """A network in memory. Measurements depend on the seed, the sub-slice and the interval only, not on their order."""

    seed: int
    profile: RadioProfile = field(default_factory=RadioProfile)
    faults: tuple[Fault, ...] = ()
    refuses: bool = False
    _orders: dict[str, SubSliceOrder] = field(default_factory=dict)
    _states: dict[str, Literal["reserved", "running", "terminated"]] = field(default_factory=dict)

    def reserve(self, order: SubSliceOrder) -> None:
        """Set resources aside."""
        if self.refuses:
            raise OrchestratorFault(f"{order.name}: the network takes no further sub-slice")
        if self._states.get(order.name) in ("reserved", "running"):
            raise OrchestratorFault(f"{order.name} is {self._states[order.name]} already")
        self._orders[order.name] = order
        self._states[order.name] = "reserved"

    def instantiate(self, name: str) -> bytes:
        """Bring a reserved sub-slice into service."""
        if self._states.get(name) != "reserved":
            raise OrchestratorFault(f"{name} is not reserved")
        self._states[name] = "running"
        return f"simulated/{name}".encode()

    def modify(self, order: SubSliceOrder) -> None:
        """Change a running sub-slice."""
        if self._states.get(order.name) != "running":
            raise OrchestratorFault(f"{order.name} is not running")
        self._orders[order.name] = order

    def status(self, name: str) -> SubSliceStatus:
        """Say where a sub-slice stands."""
        return SubSliceStatus(name, self._states.get(name, "unknown"))

    def terminate(self, name: str) -> None:
        """End a sub-slice."""
        if name in self._states:
            self._states[name] = "terminated"
            self._orders.pop(name, None)

    def metrics(self, name: str, start_ms: int, end_ms: int, demand_kbps: int) -> Measurement:
        """Carry the demand over the sub-slice's queue and measure ``SAMPLES`` packets."""
        if self._states.get(name) != "running":
            raise OrchestratorFault(f"{name} is not running")
        order = self._orders[name]
        rng = np.random.default_rng([self.seed, *name.encode(), start_ms])
        hurt = [f for f in self.faults if f.segment == order.segment and f.start_ms < end_ms and f.end_ms > start_ms]
        up, linked = 1.0, 1.0
        neighbour = 0.0
        for fault in hurt:
            overlap = (min(end_ms, fault.end_ms) - max(start_ms, fault.start_ms)) / (end_ms - start_ms)
            up *= 1.0 - overlap * (1.0 - fault.factor)
            linked *= 1.0 - overlap * fault.lost_share
            neighbour = max(neighbour, fault.neighbour_kbps * 1e3)
        capacity = self._capacity_bps(order, neighbour) * up
        demand = demand_kbps * 1e3
        competing = neighbour if order.isolation == "none" else 0.0
        fixed_s = order.delay_us * 1e-6 / 4.0
        carried, delays, lost = _carry(demand, competing, capacity, fixed_s, rng)
        return _measured(demand_kbps, carried * linked, delays, 1.0 - (1.0 - lost) * linked, up * linked)

    def _capacity_bps(self, order: SubSliceOrder, neighbour_bps: float) -> float:
        """Return what the sub-slice's resources carry.

        A noisy neighbour shares the queue where there is no isolation; with logical isolation it still raises
        interference on the RAN; with physical isolation it is not there.
        """
        if order.capacity_kbps is not None:
            return order.capacity_kbps * 1e3
        if order.segment != "ran" or not order.blocks:
            return order.bandwidth_kbps * 1e3 * 1.25
        busy = 0.0 if order.isolation == "physical" or neighbour_bps == 0.0 else NEIGHBOUR_SHARE
        rates = link_rates_bps(order.distances_m, self.profile, busy=busy)
        return float(np.sum(rates * np.asarray(order.blocks)))


def link_rates_bps(distances_m: tuple[float, ...], profile: RadioProfile, *, busy: float = 0.0) -> Floats:
    """Return the rate of one resource block at each distance, bit/s (median channel, equation 6 of Farhadi et al.).

    ``busy`` is the share of a neighbour's block power, at the cell's edge, that adds to the noise.
    """
    loss = path_loss_db(np.asarray(distances_m, dtype=np.float64), profile)
    edge = float(gain(path_loss_db(2.0 * profile.cell_radius_m, profile)))
    interference = busy * profile.block_power_w * edge
    return block_rate_bps(
        gain(loss), profile, noise_figure_db=profile.device_noise_figure_db, interference_w=interference
    )


def queue_delays_s(packet_rate: float, service_rate: float, count: int, rng: np.random.Generator) -> Floats:
    """Draw sojourn times of an M/M/1 queue in s (exponential with rate mu - lambda), at most the buffer's."""
    spare = service_rate - packet_rate
    if spare <= 0.0:
        return np.full(count, BUFFER_S)
    drawn: Floats = np.minimum(rng.exponential(1.0 / spare, count), BUFFER_S)
    return drawn


def _carry(
    demand: float, competing: float, capacity: float, fixed_s: float, rng: np.random.Generator
) -> tuple[float, Floats, float]:
    """Return the carried bit/s, delays of sampled packets in s, and the share lost, of one queue."""
    offered = demand + competing
    if capacity <= 0.0:
        return 0.0, np.full(SAMPLES, BUFFER_S), 1.0 if demand > 0.0 else 0.0
    lost = max(0.0, 1.0 - capacity / offered) if offered > 0.0 else 0.0
    delays = fixed_s + queue_delays_s(offered / PACKET_BITS, capacity / PACKET_BITS, SAMPLES, rng)
    return demand * (1.0 - lost), delays, lost


def _measured(demand_kbps: int, carried: float, delays: Floats, lost: float, up: float) -> Measurement:
    micros = np.ceil(delays * 1e6).astype(np.int64)
    p99 = int(np.sort(micros)[math.ceil(0.99 * len(micros)) - 1])
    kpis = Kpis(
        demand_kbps,
        min(demand_kbps, round(carried / 1e3)),
        p99,
        round(1e6 * lost),
        round(1e6 * up),
    )
    return Measurement(kpis, tuple(int(value).to_bytes(8, "big") for value in micros))
