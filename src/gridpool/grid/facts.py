"""The facts of a feeder as published: one attribute table of names, types, units, defaults and meanings.

The structs below are that table: the file format, the validation and the reference page are all read from them.
A file is one JSON object with a list of rows for each component, so that a person can edit it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from gridpool.errors import RefusedInput

__all__ = [
    "Capacitor",
    "Device",
    "DeviceKind",
    "Facts",
    "Generator",
    "Line",
    "LineCode",
    "Load",
    "Source",
    "Transformer",
    "Winding",
    "attribute_table",
    "read_facts",
    "write_facts",
]

MAX_BYTES = 32 << 20
"""Largest feeder file that is read, in bytes."""

Name = Annotated[str, Meta(min_length=1, max_length=120, pattern=r"^[a-z0-9_.:\-]+\Z")]
Bus = Annotated[str, Meta(min_length=1, max_length=120, pattern=r"^[a-z0-9_:\-]+\Z")]
Positive = Annotated[float, Meta(gt=0, lt=1e12)]
NotNegative = Annotated[float, Meta(ge=0, lt=1e12)]
Real = Annotated[float, Meta(gt=-1e12, lt=1e12)]
Matrix = Annotated[list[Annotated[list[Real], Meta(max_length=3)]], Meta(min_length=1, max_length=3)]
Phases = Annotated[tuple[Annotated[int, Meta(ge=1, le=3)], ...], Meta(min_length=1, max_length=3)]
Connection = Literal["wye", "delta"]
DeviceKind = Literal["generator", "switch", "capacitor", "regulator"]


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The stiff supply at the head of the feeder: a voltage behind sequence impedances."""

    bus: Annotated[Bus, Meta(description="bus it feeds")]
    kv: Annotated[Positive, Meta(description="base voltage, line to line", extra={"unit": "kV"})]
    pu: Annotated[Positive, Meta(description="voltage it holds", extra={"unit": "p.u."})] = 1.0
    angle_deg: Annotated[Real, Meta(description="angle of phase a", extra={"unit": "degree"})] = 0.0
    r1_ohm: Annotated[NotNegative, Meta(description="positive-sequence resistance", extra={"unit": "ohm"})] = 0.0
    x1_ohm: Annotated[NotNegative, Meta(description="positive-sequence reactance", extra={"unit": "ohm"})] = 1e-4
    r0_ohm: Annotated[NotNegative, Meta(description="zero-sequence resistance", extra={"unit": "ohm"})] = 0.0
    x0_ohm: Annotated[NotNegative, Meta(description="zero-sequence reactance", extra={"unit": "ohm"})] = 1e-4


class LineCode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line construction: lower triangles of its matrices, in the order of the line's phases."""

    name: Annotated[Name, Meta(description="name that lines refer to")]
    r_ohm_per_km: Annotated[Matrix, Meta(description="series resistance", extra={"unit": "ohm/km"})]
    x_ohm_per_km: Annotated[Matrix, Meta(description="series reactance", extra={"unit": "ohm/km"})]
    c_nf_per_km: Annotated[Matrix, Meta(description="shunt capacitance", extra={"unit": "nF/km"})]


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line or a switch between two buses, the same phases at both ends."""

    name: Annotated[Name, Meta(description="name")]
    from_bus: Annotated[Bus, Meta(description="one end")]
    to_bus: Annotated[Bus, Meta(description="other end")]
    phases: Annotated[Phases, Meta(description="phases, in the order of the construction's rows")]
    code: Annotated[Name, Meta(description="line construction")]
    length_m: Annotated[Positive, Meta(description="length", extra={"unit": "m"})]
    switch: Annotated[bool, Meta(description="whether it is a switch")] = False
    open: Annotated[bool, Meta(description="whether it is normally open")] = False


class Winding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One winding of a transformer."""

    bus: Annotated[Bus, Meta(description="bus")]
    phases: Annotated[Phases, Meta(description="phases it connects to; two for a single-phase delta winding")]
    connection: Annotated[Connection, Meta(description="wye (grounded) or delta")] = "wye"
    kv: Annotated[Positive, Meta(description="rated voltage", extra={"unit": "kV"})]
    kva: Annotated[Positive, Meta(description="rating", extra={"unit": "kVA"})]
    r_percent: Annotated[NotNegative, Meta(description="resistance on its own base", extra={"unit": "%"})] = 0.2


class Transformer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A two-winding transformer; a regulator is one whose second winding has taps."""

    name: Annotated[Name, Meta(description="name")]
    bank: Annotated[Name | None, Meta(description="bank of single-phase units it belongs to")] = None
    phase_count: Annotated[int, Meta(ge=1, le=3, description="number of phases")] = 3
    primary: Annotated[Winding, Meta(description="winding on the side of the source")]
    secondary: Annotated[Winding, Meta(description="winding on the side of the load")]
    x_percent: Annotated[NotNegative, Meta(description="leakage reactance", extra={"unit": "%"})] = 7.0
    antifloat_ppm: Annotated[Real, Meta(description="shunt that keeps delta windings from floating")] = 1.0
    regulator: Annotated[bool, Meta(description="whether its taps are controlled")] = False
    tap: Annotated[
        int, Meta(ge=-64, le=64, description="position of the published solution", extra={"unit": "1/16 of 10 %"})
    ] = 0


class Load(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A spot load."""

    name: Annotated[Name, Meta(description="name")]
    bus: Annotated[Bus, Meta(description="bus")]
    phases: Annotated[Phases, Meta(description="phases; two for a line-to-line load")]
    connection: Annotated[Connection, Meta(description="wye (to ground) or delta")] = "wye"
    model: Annotated[
        int,
        Meta(
            ge=1, le=5, description="1 constant power, 2 constant impedance, 3 motor, 4 exponential, 5 constant current"
        ),
    ] = 1
    kv: Annotated[Positive, Meta(description="rated voltage", extra={"unit": "kV"})]
    kw: Annotated[NotNegative, Meta(description="real power of all phases", extra={"unit": "kW"})]
    kvar: Annotated[Real, Meta(description="reactive power of all phases", extra={"unit": "kvar"})] = 0.0


class Capacitor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A shunt capacitor."""

    name: Annotated[Name, Meta(description="name")]
    bus: Annotated[Bus, Meta(description="bus")]
    phases: Annotated[Phases, Meta(description="phases")]
    connection: Annotated[Connection, Meta(description="wye (to ground) or delta")] = "wye"
    kv: Annotated[Positive, Meta(description="rated voltage", extra={"unit": "kV"})]
    kvar: Annotated[Positive, Meta(description="rating of all phases", extra={"unit": "kvar"})]


class Generator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A distributed generator; without a rating it takes its part of the feeder's DG share."""

    name: Annotated[Name, Meta(description="name")]
    bus: Annotated[Bus, Meta(description="bus")]
    phases: Annotated[Phases, Meta(description="phases")]
    kw: Annotated[Positive | None, Meta(description="rating of all phases", extra={"unit": "kW"})] = None


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One controllable device and the node at which it is booked (change ``node`` to book it elsewhere)."""

    name: Annotated[Name, Meta(description="regulator bank, capacitor, switch or generator")]
    kind: Annotated[DeviceKind, Meta(description="what it is")]
    node: Annotated[Name, Meta(description="node whose downlink controls it")]


class Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that is known about a feeder."""

    name: Annotated[Name, Meta(description="name of the feeder")]
    title: Annotated[str, Meta(max_length=300, description="one line on what it is")] = ""
    frequency_hz: Annotated[Positive, Meta(description="frequency", extra={"unit": "Hz"})] = 60.0
    lower_pu: Annotated[Positive, Meta(description="lower voltage limit", extra={"unit": "p.u."})] = 0.95
    upper_pu: Annotated[Positive, Meta(description="upper voltage limit", extra={"unit": "p.u."})] = 1.05
    source: Source
    nodes: Annotated[dict[Bus, Name], Meta(description="bus -> node of the feeder's published drawing; self if absent")]
    line_codes: list[LineCode]
    lines: list[Line]
    transformers: list[Transformer]
    loads: list[Load]
    capacitors: list[Capacitor] = []
    generators: list[Generator] = []
    devices: list[Device] = []
    coordinates: Annotated[dict[Bus, tuple[Real, Real]], Meta(description="drawing position of a bus")] = {}


def read_facts(path: Path) -> Facts:
    """Read a feeder file; RefusedInput names the row and attribute that does not fit."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RefusedInput(f"{path} is larger than {MAX_BYTES >> 20} MiB; no feeder file is")
        return msgspec.json.decode(path.read_bytes(), type=Facts)
    except OSError as error:
        raise RefusedInput(f"cannot read the feeder file {path}: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedInput(f"{path} is not a feeder file: {error}") from error


def write_facts(facts: Facts, path: Path) -> None:
    """Write a feeder file, one row a line, through a temporary name."""
    lines = []
    for key, value in msgspec.to_builtins(facts).items():
        if isinstance(value, list) and value:
            rows = ",\n".join("    " + msgspec.json.encode(row).decode() for row in value)
            lines.append(f"  {msgspec.json.encode(key).decode()}: [\n{rows}\n  ]")
        elif isinstance(value, dict) and key in {"nodes", "coordinates"} and value:
            rows = ",\n".join(
                f"    {msgspec.json.encode(bus).decode()}: {msgspec.json.encode(row).decode()}"
                for bus, row in value.items()
            )
            lines.append(f"  {msgspec.json.encode(key).decode()}: {{\n{rows}\n  }}")
        else:
            lines.append(f"  {msgspec.json.encode(key).decode()}: {msgspec.json.encode(value).decode()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    temporary.replace(path)


def attribute_table() -> list[tuple[str, str, str, str, str]]:
    """List (component, attribute, unit, default, meaning) of every attribute, in file order."""
    rows = []
    for struct in (Facts, Source, LineCode, Line, Transformer, Winding, Load, Capacitor, Generator, Device):
        hints = get_type_hints(struct, include_extras=True)
        for field in msgspec.structs.fields(struct):
            unit, meaning = _annotations(hints[field.name])
            default = "" if field.default is msgspec.NODEFAULT else repr(field.default)
            rows.append((struct.__name__, field.name, unit, default, meaning))
    return rows


def _annotations(hint: Any) -> tuple[str, str]:
    if get_origin(hint) is not Annotated:
        return "", ""
    unit = meaning = ""
    for mark in get_args(hint)[1:]:
        if isinstance(mark, Meta):
            meaning = mark.description or meaning
            unit = (mark.extra or {}).get("unit", unit)
    return unit, meaning
