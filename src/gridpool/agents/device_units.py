"""What devices exchange, cut into units: a file under a Merkle root, or metered energy."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from gridpool.agents.access_credential import Distrusted
from gridpool.ledger.merkle import root_from_path

__all__ = ["MOST_UNITS", "EnergyUnits", "FileUnits", "Terms", "Unit", "Units", "check_data_unit"]

MOST_UNITS = 65_536
MOST_UNIT_BYTES = 524_288


@dataclass(frozen=True, slots=True)
class Terms:
    """What is offered: ``units`` of ``unit_bytes`` (Wh for energy), ``size`` in all, the root of data."""

    item: str
    kind: str
    units: int
    unit_bytes: int
    size: int
    root: bytes
    price: int


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit and, for data, its path to the root."""

    index: int
    data: bytes
    path: tuple[bytes, ...]


class Units(Protocol):
    """A source of units."""

    @property
    def terms(self) -> Terms:
        """What is offered."""

    def unit(self, index: int) -> Unit:
        """Return a unit; for energy, deliver it and return the meter's reading."""


class FileUnits:
    """A file in units of equal size (the last may be shorter), read as it is asked for."""

    def __init__(self, path: Path, *, unit_bytes: int = 65_536, price: int = 0, item: str | None = None) -> None:
        """Hash the file once; raises Distrusted where it does not fit into 65536 units of at most 512 KiB."""
        size = path.stat().st_size
        if not 1 <= unit_bytes <= MOST_UNIT_BYTES:
            raise Distrusted(f"a unit has 1 to {MOST_UNIT_BYTES} bytes")
        if not 1 <= size <= unit_bytes * MOST_UNITS:
            raise Distrusted(f"{path} has {size} bytes; 1 to {MOST_UNITS} units of {unit_bytes} bytes are exchanged")
        self._path = path
        level = []
        with path.open("rb") as file:
            while piece := file.read(unit_bytes):
                level.append(sha256(b"\0" + piece).digest())
        self._levels = [level]
        while len(level) > 1:
            above = [sha256(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
            level = above + level[-1:] if len(level) & 1 else above
            self._levels.append(level)
        units = len(self._levels[0])
        self.terms = Terms(item or path.name, "data", units, unit_bytes, size, level[0], price)

    def unit(self, index: int) -> Unit:
        """Read a unit and its path."""
        with self._path.open("rb") as file:
            file.seek(index * self.terms.unit_bytes)
            data = file.read(self.terms.unit_bytes)
        path, at = [], index
        for level in self._levels[:-1]:
            if at ^ 1 < len(level):
                path.append(level[at ^ 1])
            at >>= 1
        return Unit(index, data, tuple(path))


class EnergyUnits:
    """Metered energy: ``deliver(index)`` gives one unit of ``wh`` Wh and returns the meter's reading in Wh."""

    def __init__(self, item: str, *, wh: int, units: int, price: int, deliver: Callable[[int], int]) -> None:
        if not 1 <= units <= MOST_UNITS:
            raise Distrusted(f"1 to {MOST_UNITS} units are exchanged")
        self.terms = Terms(item, "energy", units, wh, wh * units, bytes(32), price)
        self._deliver = deliver

    def unit(self, index: int) -> Unit:
        """Deliver a unit."""
        return Unit(index, self._deliver(index).to_bytes(8, "big"), ())


def check_data_unit(terms: Terms, unit: Unit) -> bool:
    """Tell whether a unit of data is the one that the root commits to."""
    expected = min(terms.unit_bytes, terms.size - unit.index * terms.unit_bytes)
    return len(unit.data) == expected and root_from_path(unit.data, unit.index, terms.units, unit.path) == terms.root
