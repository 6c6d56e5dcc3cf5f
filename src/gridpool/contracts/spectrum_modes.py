"""The four ways of sharing spectrum, as named sets of terms for an idle band.

*Primary* sharing is among equals, *secondary* sharing leaves somebody the first right; *cooperative* sharing is agreed
and protected, *non-cooperative* sharing lets anybody transmit who keeps the limits. Source: the four cases of Weiss
et al., IEEE TCCN 5(2), 2019, that section 2 of Xu et al. (2020) builds on.
"""

from typing import Literal

import msgspec

from gridpool.contracts.spectrum_records import HEARTBEAT_MS, HOUR_MS, Kind, Pricing

__all__ = ["MODES", "Mode", "SharingMode"]

Mode = Literal["primary_cooperative", "primary_noncooperative", "secondary_cooperative", "secondary_noncooperative"]


class SharingMode(msgspec.Struct, frozen=True):
    """The terms that make a mode: kind of right, price rule, notice of a recall, and whether a lease may be passed on.

    ``incumbent`` says whether somebody keeps a protected first right in the band.
    """

    kind: Kind
    pricing: Pricing
    notice_ms: int
    transferable: bool
    incumbent: bool


MODES: dict[Mode, SharingMode] = {
    "primary_cooperative": SharingMode("exclusive", "payg", 24 * HOUR_MS, True, False),
    "primary_noncooperative": SharingMode("general", "fixed", HEARTBEAT_MS, False, False),
    "secondary_cooperative": SharingMode("shared", "payg", HOUR_MS, True, True),
    "secondary_noncooperative": SharingMode("general", "fixed", HEARTBEAT_MS, False, True),
}
"""Mode -> terms. Operators pool bands; users coexist as equals; an incumbent licenses sharers; white-space devices."""
