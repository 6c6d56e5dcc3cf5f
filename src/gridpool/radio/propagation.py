"""Path loss, shadowing, noise, and the rate of one resource block."""

import math
from typing import Annotated, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

__all__ = ["BLOCK_HZ", "STANDARD_PROFILE", "RadioProfile", "block_rate_bps", "gain", "noise_w", "path_loss_db"]

Floats: TypeAlias = npt.NDArray[np.float64]

BLOCK_HZ = 180e3
"""Bandwidth of one resource block: 12 subcarriers of 15 kHz (3GPP TS 38.211)."""

THERMAL_DBM_PER_HZ = -174.0
NEAREST_M = 10.0


class RadioProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of the radio links, in the units their names say.

    ``antenna_m`` is the height above the mean rooftop, as in 3GPP TR 36.942; ``block_power_dbm`` is the power a
    resource block, ``cell_power_w`` the most that a gNB spends on URLLC blocks for one MVNO. ``as_published`` adds
    shadowing as log10(X), as equation (4) of Farhadi et al. prints it, which is a tenth of what it means.
    """

    antenna_m: Annotated[float, Meta(gt=0.0, lt=250.0)] = 15.0
    carrier_mhz: Annotated[float, Meta(ge=100.0, le=100_000.0)] = 2000.0
    block_power_dbm: Annotated[float, Meta(ge=-30.0, le=60.0)] = 30.0
    cell_power_w: Annotated[float, Meta(ge=0.0, le=10_000.0)] = 20.0
    device_noise_figure_db: Annotated[float, Meta(ge=0.0, le=30.0)] = 9.0
    gnb_noise_figure_db: Annotated[float, Meta(ge=0.0, le=30.0)] = 5.0
    sigma_db: Annotated[float, Meta(ge=0.0, le=40.0)] = 8.0
    cell_radius_m: Annotated[float, Meta(ge=20.0, le=20_000.0)] = 250.0
    as_published: bool = False

    @property
    def block_power_w(self) -> float:
        """Transmit power a resource block in W."""
        return float(10.0 ** (self.block_power_dbm / 10.0 - 3.0))

    @property
    def urllc_blocks(self) -> int:
        """Most URLLC resource blocks of a cell and MVNO under the power limit (7d)."""
        return math.floor(self.cell_power_w / self.block_power_w + 1e-9)


STANDARD_PROFILE = RadioProfile()


def path_loss_db(distance_m: Floats | float, profile: RadioProfile) -> Floats:
    """Return the median path loss in dB at ``distance_m`` (clamped at 10 m).

    Source: 3GPP TR 36.942 macro model, equation (3) of Farhadi et al. (2022).
    """
    km = np.maximum(np.asarray(distance_m, dtype=np.float64), NEAREST_M) / 1000.0
    slope = 40.0 * (1.0 - 4e-3 * profile.antenna_m)
    fixed = -18.0 * math.log10(profile.antenna_m) + 21.0 * math.log10(profile.carrier_mhz) + 80.0
    return np.asarray(slope * np.log10(km) + fixed, dtype=np.float64)


def gain(loss_db: Floats | float) -> Floats:
    """Return the linear gain of a loss in dB (equation 5)."""
    return np.asarray(10.0 ** (-np.asarray(loss_db, dtype=np.float64) / 10.0), dtype=np.float64)


def noise_w(noise_figure_db: float) -> float:
    """Return the thermal noise of one resource block in W at a receiver with this noise figure."""
    return float(10.0 ** ((THERMAL_DBM_PER_HZ + 10.0 * math.log10(BLOCK_HZ) + noise_figure_db) / 10.0 - 3.0))


def block_rate_bps(
    link_gain: Floats | float, profile: RadioProfile, *, noise_figure_db: float, interference_w: Floats | float = 0.0
) -> Floats:
    """Return Shannon's rate of one resource block in bit/s (equation 6)."""
    signal = profile.block_power_w * np.asarray(link_gain, dtype=np.float64)
    disturbance = noise_w(noise_figure_db) + np.asarray(interference_w, dtype=np.float64)
    return np.asarray(BLOCK_HZ * np.log2(1.0 + signal / disturbance), dtype=np.float64)
