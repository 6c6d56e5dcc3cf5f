"""What a slice must offer: TS 28.541's service profile as integers, and ready profiles for the grid's sections."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gridpool.ledger.types import Value

__all__ = ["TEMPLATES", "Isolation", "ServiceProfile", "Template", "template"]

Isolation = Literal["none", "logical", "physical"]
"""``logical``: own resource blocks and queue; ``physical``: own cell or band (NG.116, isolation level)."""

Kbps = Annotated[int, Meta(ge=0, le=10**9)]
Micros = Annotated[int, Meta(ge=0, le=10**12)]
PartsPerBillion = Annotated[int, Meta(ge=0, le=10**9)]
Count = Annotated[int, Meta(ge=0, le=10**9)]
Area = Annotated[str, Meta(min_length=1, max_length=32, pattern="^[^\\x00]*$")]


class ServiceProfile(Value, kw_only=True):
    """The attributes of a slice under the names of TS 28.541's ServiceProfile; None where nothing is asked.

    Throughput in kbit/s (guaranteed and maximum, a slice and a device, each way), ``latency`` (packet delay budget)
    and ``survivalTime`` in us, ``reliability`` and ``availability`` in parts per billion, ``coverageArea`` as H3 cells
    or buses, ``activityWindow`` as ms of the day [start, end).
    """

    dLThptPerSliceGua: Kbps | None = None
    dLThptPerSliceMax: Kbps | None = None
    uLThptPerSliceGua: Kbps | None = None
    uLThptPerSliceMax: Kbps | None = None
    dLThptPerUEGua: Kbps | None = None
    dLThptPerUEMax: Kbps | None = None
    uLThptPerUEGua: Kbps | None = None
    uLThptPerUEMax: Kbps | None = None
    latency: Micros | None = None
    reliability: PartsPerBillion | None = None
    availability: PartsPerBillion | None = None
    survivalTime: Micros | None = None
    maxNumberofUEs: Count | None = None
    coverageArea: Annotated[tuple[Area, ...], Meta(max_length=256)] = ()
    isolation: Isolation = "none"
    activityWindow: (
        tuple[Annotated[int, Meta(ge=0, lt=86_400_000)], Annotated[int, Meta(gt=0, le=86_400_000)]] | None
    ) = None


_NOTHING_ASKED = ServiceProfile()


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A named profile with its S-NSSAI and, for each attribute, the public source of its figure.

    ``sst`` 1 eMBB, 2 URLLC, 3 MIoT (TS 23.501, table 5.15.2.2-1); ``sd`` is a 24-bit number.
    """

    name: str
    section: str
    sst: Annotated[int, Meta(ge=0, le=255)]
    sd: Annotated[int, Meta(ge=0, lt=2**24)]
    attributes: ServiceProfile
    sources: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Give the template as JSON-ready data; attributes that it leaves open are left out."""
        asked = {
            name: msgspec.to_builtins(getattr(self.attributes, name))
            for name in self.attributes.__struct_fields__
            if getattr(self.attributes, name) != getattr(_NOTHING_ASKED, name)
        }
        return {
            "name": self.name,
            "section": self.section,
            "sst": self.sst,
            "sd": f"{self.sd:06x}",
            "attributes": asked,
            "sources": list(self.sources),
        }


NARROWBAND = (
    "3GPP TS 22.261 V18, clause 7.4.2, row narrowband IoT connectivity (10 kbit/s up, 2 kbit/s down; in square "
    "brackets there, so not final; a figure for such devices in general, none is published there for this use)"
)
TS_22_104 = "3GPP TS 22.104 V18, table 5.3-1"
LOGICAL = (
    "isolation: SGCC, China Telecom, Huawei, Smart Grid Powered by 5G SA-based Network Slicing (GSMA), clauses 2.1.1 "
    "and 2.1.2: production areas I/II are kept apart from management areas III/IV"
)

TEMPLATES: tuple[Template, ...] = (
    Template(
        name="line_monitoring",
        section="transmission",
        sst=3,
        sd=0x000101,
        attributes=ServiceProfile(uLThptPerUEGua=10, dLThptPerUEGua=2),
        sources=(f"uLThptPerUEGua, dLThptPerUEGua: {NARROWBAND}",),
    ),
    Template(
        name="drone_inspection",
        section="transmission",
        sst=1,
        sd=0x000102,
        attributes=ServiceProfile(
            uLThptPerUEMax=50_000, dLThptPerUEGua=60, dLThptPerUEMax=100, latency=50_000, reliability=999_000_000
        ),
        sources=(
            "uLThptPerUEMax (application data), dLThptPerUEGua, dLThptPerUEMax, latency and reliability (command and "
            "control): 3GPP TR 36.777, clause 5, requirements of aerial vehicles, compared with table 1 of Zeng, Wu, "
            "Zhang, Accessing From the Sky, Proc. IEEE 107(12), 2019, which quotes it",
        ),
    ),
    Template(
        name="robot_inspection",
        section="substation",
        sst=1,
        sd=0x000201,
        attributes=ServiceProfile(
            uLThptPerUEGua=10_000, latency=10_000, availability=999_999_000, maxNumberofUEs=2_000
        ),
        sources=(
            "uLThptPerUEGua, latency, availability, maxNumberofUEs (upper bound): "
            f"{TS_22_104}, row mobile robots - video streaming (clause A.2.2.3)",
        ),
    ),
    Template(
        name="monitoring_access",
        section="substation",
        sst=3,
        sd=0x000202,
        attributes=ServiceProfile(uLThptPerUEGua=10, dLThptPerUEGua=2, isolation="logical"),
        sources=(f"uLThptPerUEGua, dLThptPerUEGua: {NARROWBAND}", LOGICAL),
    ),
    Template(
        name="differential_protection",
        section="distribution",
        sst=2,
        sd=0x000301,
        attributes=ServiceProfile(latency=10_000, isolation="logical"),
        sources=(
            "latency (the longer of the two bounds): 3GPP TR 22.867 V18.2.0, CPR-7.1-1, from clause 5.4",
            LOGICAL,
        ),
    ),
    Template(
        name="feeder_automation",
        section="distribution",
        sst=2,
        sd=0x000302,
        attributes=ServiceProfile(latency=50_000, reliability=999_990_000, isolation="logical"),
        sources=(
            "latency (packet delay budget): 3GPP TS 23.501, table 5.7.4-1, 5QI 3, electricity distribution - medium "
            "voltage",
            "reliability: SGCC, China Telecom, Huawei, Smart Grid Powered by 5G SA-based Network Slicing (GSMA), "
            "clause 2.1.1",
            LOGICAL,
        ),
    ),
    Template(
        name="load_control",
        section="distribution",
        sst=2,
        sd=0x000303,
        attributes=ServiceProfile(
            uLThptPerUEGua=1, dLThptPerUEMax=28, latency=50_000, availability=999_999_000, isolation="logical"
        ),
        sources=(
            "uLThptPerUEGua (0.59 kbit/s rounded up), dLThptPerUEMax, latency, availability: "
            f"{TS_22_104}, row smart grid millisecond level precise load control (clause A.4.5)",
            LOGICAL,
        ),
    ),
    Template(
        name="meter_collection",
        section="consumption",
        sst=3,
        sd=0x000401,
        attributes=ServiceProfile(
            uLThptPerUEGua=10, dLThptPerUEGua=2, dLThptPerUEMax=1_000, latency=100_000, availability=999_900_000
        ),
        sources=(
            f"dLThptPerUEMax, latency, availability: {TS_22_104}, the row after distributed energy storage (clause "
            "A.4.6), which is that of advanced metering (A.4.7); the figures were compared, in the copy at hand the "
            "row's name was cut off",
            f"uLThptPerUEGua, dLThptPerUEGua: {NARROWBAND}",
        ),
    ),
    Template(
        name="charging",
        section="consumption",
        sst=3,
        sd=0x000402,
        attributes=ServiceProfile(uLThptPerUEGua=10, dLThptPerUEGua=2),
        sources=(f"uLThptPerUEGua, dLThptPerUEGua: {NARROWBAND}",),
    ),
    Template(
        name="home_energy_management",
        section="consumption",
        sst=3,
        sd=0x000403,
        attributes=ServiceProfile(uLThptPerUEGua=10, dLThptPerUEGua=2),
        sources=(f"uLThptPerUEGua, dLThptPerUEGua: {NARROWBAND}",),
    ),
)


def template(name: str) -> Template | None:
    """Return the ready template called ``name``, or None."""
    return next((one for one in TEMPLATES if one.name == name), None)
