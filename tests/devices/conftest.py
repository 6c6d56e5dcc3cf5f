"""A ledger with two devices on it, a car that fetches and a charger that serves."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from devices_world import DAY, PRICE, AccessWorld, Side, now

from gridpool.agents.access_credential import deposit_key
from gridpool.agents.device_units import FileUnits
from gridpool.contracts.devices import OpenDeposit


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AccessWorld]:
    with AccessWorld(tmp_path / "home") as made:
        yield made


@pytest.fixture
def sides(world: AccessWorld, tmp_path: Path) -> tuple[Side, Side]:
    """A car that fetches and a charger that serves; the car has deposited 1000 for it."""
    car, charger = world.wallets["a0"], world.wallets["b0"]
    world.submit(car, OpenDeposit(charger.public, 1_000, now() + 30 * DAY))
    return (
        Side(car, world.credential(car, deposit_key(car.public, 1)), world.credentials(), tmp_path / "car"),
        Side(charger, world.credential(charger), world.credentials(), tmp_path / "charger"),
    )


@pytest.fixture
def source(tmp_path: Path) -> FileUnits:
    path = tmp_path / "map.bin"
    path.write_bytes(os.urandom(4_900))
    return FileUnits(path, unit_bytes=1_000, price=PRICE)
