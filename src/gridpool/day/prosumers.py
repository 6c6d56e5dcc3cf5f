"""The prosumers of a day: where they live, what they will need and feed in, and what they expect beforehand."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gridpool.day.calendar import Calendar
from gridpool.day.scenario import Forecast, Prosumers, Vehicles

__all__ = ["Fleet", "make_fleet"]

Series = npt.NDArray[np.float64]

INDIVIDUALITY = 0.25
"""Spread of one household's demand around the standard profile, which averages over many."""
LARGEST_SHARE = 0.8
"""Prosumers make up at most this share of a bus's load."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """All prosumers; arrays have shape (prosumers,) or (prosumers, intervals), powers in W."""

    buses: tuple[str, ...]
    load_peak_w: Series
    pv_peak_w: Series
    is_vehicle: npt.NDArray[np.bool_]
    coins: npt.NDArray[np.int64]
    load_w: Series
    """Demand at full supply, charging of vehicles included."""
    sun_w: Series
    """What the PV generator could feed in; of a vehicle, what its battery feeds back."""
    forecast_load_w: Series
    forecast_sun_w: Series

    def __len__(self) -> int:
        return len(self.buses)

    def by_bus(self, values: Series) -> dict[str, Series]:
        """Sum (prosumers, intervals) values over the prosumers of each bus."""
        sums: dict[str, Series] = {}
        for bus, row in zip(self.buses, values, strict=True):
            sums[bus] = sums[bus] + row if bus in sums else row.copy()
        return sums


def make_fleet(
    bus_load_w: Mapping[str, float],
    household: Series,
    sun: Series,
    calendar: Calendar,
    prosumers: Prosumers,
    forecast: Forecast,
    vehicles: Vehicles,
    rng: np.random.Generator,
) -> Fleet:
    """Draw the fleet of a day.

    Parameters
    ----------
    bus_load_w
        Nominal load of each bus in W, in feeder order; prosumers settle in proportion to it and are part of it.
    household, sun
        Demand / peak and PV power / peak, shape (intervals,).
    """
    count = prosumers.count
    names = [bus for bus, load in bus_load_w.items() if load > 0]
    loads = np.array([bus_load_w[bus] for bus in names])
    homes = rng.choice(len(names), size=count, p=loads / loads.sum())
    load_peak = rng.uniform(*prosumers.load_peak_w, size=count)
    for home in range(len(names)):
        here = homes == home
        crowded = load_peak[here].sum() / (LARGEST_SHARE * loads[home])
        if crowded > 1.0:
            load_peak[here] /= crowded
    has_pv = rng.random(count) < prosumers.pv_share
    is_vehicle = rng.random(count) < vehicles.share
    pv_peak = np.where(has_pv & ~is_vehicle, rng.uniform(*prosumers.pv_peak_w, size=count), 0.0)
    low, high = prosumers.coins
    coins = rng.integers(low, high, size=count, endpoint=True)

    own = np.exp(autoregressive(rng, (count, len(calendar)), INDIVIDUALITY, 0.9))
    load = load_peak[:, None] * household * own
    clouds = np.clip(1.0 - np.abs(autoregressive(rng, (count, len(calendar)), 0.1, 0.9)), 0.0, 1.0)
    feed = pv_peak[:, None] * sun * clouds
    charging, feeding = _vehicle_power(calendar, vehicles)
    load = np.where(is_vehicle[:, None], charging, load)
    feed = np.where(is_vehicle[:, None], feeding, feed)

    def expected(values: Series) -> Series:
        error = autoregressive(rng, values.shape, forecast.error, forecast.persistence)
        guess: Series = values * np.clip(1.0 + error, 0.0, None)
        return guess

    return Fleet(
        buses=tuple(names[home] for home in homes),
        load_peak_w=load_peak,
        pv_peak_w=pv_peak,
        is_vehicle=is_vehicle,
        coins=coins,
        load_w=load,
        sun_w=feed,
        forecast_load_w=expected(load),
        forecast_sun_w=expected(feed),
    )


def autoregressive(rng: np.random.Generator, shape: tuple[int, ...], deviation: float, persistence: float) -> Series:
    """Return stationary AR(1) noise along the last axis with the given standard deviation and lag-one correlation."""
    noise = rng.standard_normal(shape)
    noise[..., 1:] *= np.sqrt(1.0 - persistence**2)
    for step in range(1, shape[-1]):
        noise[..., step] += persistence * noise[..., step - 1]
    scaled: Series = deviation * noise
    return scaled


def _vehicle_power(calendar: Calendar, vehicles: Vehicles) -> tuple[Series, Series]:
    """Return charging and feeding power in W, shape (intervals,): the battery is filled off-peak and halved at peak."""
    hour = [moment.strftime("%H:%M") for moment in calendar.local]
    charge = np.array([_within(clock, vehicles.charge_from, vehicles.charge_until) for clock in hour], dtype=float)
    feed = np.array([_within(clock, vehicles.feed_from, vehicles.feed_until) for clock in hour], dtype=float)
    energy = vehicles.battery_wh / 2
    for window in (charge, feed):
        hours = window.sum() / 4
        if hours > 0:
            window *= min(vehicles.power_w, energy / hours)
    return charge, feed


def _within(clock: str, begin: str, end: str) -> bool:
    return begin <= clock < end if begin <= end else clock >= begin or clock < end
