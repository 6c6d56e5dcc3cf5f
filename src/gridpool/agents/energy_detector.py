"""The energy detector: how often a sensor is right, in closed form and in simulation.

A sensor adds the energy of N complex samples, in units of the noise power. Noise alone: the sum is Gamma(N, 1); with a
Gaussian signal of signal-to-noise ratio g it is (1 + g) Gamma(N, 1); with one of constant amplitude twice the sum is
noncentral chi-square with 2N degrees of freedom and noncentrality 2Ng. Sources: Urkowitz, Proc. IEEE 55(4), 1967;
Digham, Alouini, Simon, IEEE Trans. Communications 55(1), 2007.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special, stats

__all__ = ["Signal", "detection", "energies", "false_alarm", "threshold_for"]

Signal = Literal["gaussian", "constant"]
Floats = npt.NDArray[np.float64]


def false_alarm(threshold: Floats | float, samples: int) -> Floats:
    """Return the probability that noise alone reaches ``threshold`` (in noise powers) over ``samples``."""
    return np.asarray(special.gammaincc(samples, threshold), dtype=np.float64)


def threshold_for(probability: Floats | float, samples: int) -> Floats:
    """Return the threshold whose false-alarm probability this is."""
    return np.asarray(special.gammainccinv(samples, probability), dtype=np.float64)


def detection(threshold: Floats | float, samples: int, snr: float, signal: Signal = "gaussian") -> Floats:
    """Return the probability that a signal of linear ``snr`` per sample reaches ``threshold``."""
    if signal == "gaussian":
        return np.asarray(special.gammaincc(samples, np.asarray(threshold) / (1.0 + snr)), dtype=np.float64)
    return np.asarray(stats.ncx2.sf(2.0 * np.asarray(threshold), 2 * samples, 2.0 * samples * snr), dtype=np.float64)


def energies(trials: int, samples: int, snr: float, rng: np.random.Generator, signal: Signal = "gaussian") -> Floats:
    """Simulate ``trials`` sums of energy, sample by sample; ``snr`` 0 is noise alone."""
    noise = (rng.standard_normal((trials, samples)) + 1j * rng.standard_normal((trials, samples))) / np.sqrt(2.0)
    if snr > 0.0:
        if signal == "gaussian":
            wave = (rng.standard_normal((trials, samples)) + 1j * rng.standard_normal((trials, samples))) / np.sqrt(2.0)
        else:
            wave = np.exp(2j * np.pi * rng.random((trials, samples)))
        noise = noise + np.sqrt(snr) * wave
    return np.asarray(np.sum(np.abs(noise) ** 2, axis=1), dtype=np.float64)
