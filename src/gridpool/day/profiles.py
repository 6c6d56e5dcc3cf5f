"""What the sun and the hour of the day do: standard load profiles and clear-sky irradiance."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from gridpool.day.calendar import Calendar
from gridpool.day.scenario import Place

__all__ = ["load_profile", "sun_profile"]

PANEL_TILT_DEG = 30.0
PANEL_AZIMUTH_DEG = 180.0
STANDARD_IRRADIANCE_W_M2 = 1_000.0


def load_profile(
    calendar: Calendar, kind: Literal["h0", "g0"], peak: Literal["day_peak", "year_peak"]
) -> npt.NDArray[np.float64]:
    """Return power / peak for each interval, shape (intervals,): BDEW H0 (households) or G0 (commerce).

    The peak is that of the day itself or that of its year.
    """
    from demandlib import bdew

    year = calendar.local[0].year
    column = "h0_dyn" if kind == "h0" else kind
    frame = bdew.ElecSlp(year).get_scaled_power_profiles({column: 1_000.0})[column]
    # The standard profile is given in wall-clock time, so a day of 92 or 100 quarter hours skips or repeats some.
    clock = [moment.replace(tzinfo=None) for moment in calendar.local]
    shares: npt.NDArray[np.float64] = frame.reindex(clock).to_numpy(dtype=float)
    return shares / (shares.max() if peak == "day_peak" else float(frame.max()))


def sun_profile(calendar: Calendar, place: Place) -> npt.NDArray[np.float64]:
    """Return clear-sky PV power / peak power for each interval, shape (intervals,), at the middle of the interval.

    Simplified Solis clear sky on a panel that faces south at 30 degrees; losses are part of the peak power.
    """
    import pandas as pd
    import pvlib

    middles = pd.to_datetime(np.array(calendar.starts_ms) + 450_000, unit="ms", utc=True)
    site = pvlib.location.Location(place.latitude, place.longitude, tz="UTC")
    sun = site.get_solarposition(middles)
    sky = site.get_clearsky(middles, model="simplified_solis", solar_position=sun)
    azimuth = PANEL_AZIMUTH_DEG if place.latitude >= 0 else 0.0
    panel = pvlib.irradiance.get_total_irradiance(
        PANEL_TILT_DEG, azimuth, sun.apparent_zenith, sun.azimuth, sky.dni, sky.ghi, sky.dhi
    )
    shares = np.nan_to_num(panel.poa_global.to_numpy(dtype=float)) / STANDARD_IRRADIANCE_W_M2
    clipped: npt.NDArray[np.float64] = np.clip(shares, 0.0, 1.0)
    return clipped
