"""Import of a GSMA NG.116 generic slice template, as TMF633 characteristics, with a report of what became of each."""

import math
import re
from collections.abc import Callable
from typing import Any

import msgspec

from gridpool.contracts.slices.templates import ServiceProfile, Template
from gridpool.errors import RefusedInput

__all__ = ["ImportedTemplate", "import_template"]

MOST_CHARACTERISTICS = 2_000
NO_SD = 0xFFFFFF
"""The slice differentiator that says there is none (TS 23.003, clause 28.4.2)."""

KBPS = {"bps": 1e-3, "bit/s": 1e-3, "kbps": 1.0, "kbit/s": 1.0, "mbps": 1e3, "mbit/s": 1e3, "gbps": 1e6, "gbit/s": 1e6}
MICROS = {"us": 1.0, "microseconds": 1.0, "ms": 1e3, "milliseconds": 1e3, "s": 1e6, "seconds": 1e6}
PARTS = {"%": 1e7, "percent": 1e7, "percentage": 1e7, "": 1e7}
ISOLATION = {
    "0": "none", "no isolation": "none", "none": "none",
    "1": "physical", "physical": "physical", "physical isolation": "physical",
    "2": "logical", "logical": "logical", "logical isolation": "logical",
}  # fmt: skip
SLICE_TYPES = {"embb": 1, "urllc": 2, "miot": 3, "mmtc": 3, "v2x": 4, "hmtc": 5}


class ImportedTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """The template, the characteristics that it came from, those it has no use for, and what had to be assumed."""

    template: Template
    mapped: tuple[str, ...]
    unmapped: tuple[str, ...]
    assumed: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Give the report as JSON-ready data."""
        return {
            "template": self.template.as_dict(),
            "mapped": list(self.mapped),
            "unmapped": list(self.unmapped),
            "assumed": list(self.assumed),
        }


class _Reading(msgspec.Struct):
    """A characteristic as found: its name, value, and unit as written (empty where none is)."""

    name: str
    value: Any
    unit: str


def import_template(data: bytes, where: str) -> ImportedTemplate:
    """Map a TMF633 service specification (or a service's characteristics) with NG.116 names to a template.

    Raises RefusedInput where the JSON is none, holds no characteristics, or a mapped value makes no sense.
    """
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedInput(f"{where} is no JSON: {error}") from error
    readings, title = _readings(document, where)
    values: dict[str, Any] = {}
    mapped: list[str] = []
    unmapped: list[str] = []
    assumed: list[str] = []
    for reading in readings:
        rule = _rule(reading.name)
        if rule is None or reading.value is None or reading.value == "":
            unmapped.append(reading.name)
            continue
        attribute, convert, unit = rule
        if not reading.unit and unit:
            assumed.append(f"{attribute}: no unit given for {reading.name!r}, taken as {unit}")
        try:
            value = convert(reading.value, reading.unit or unit)
        except (ValueError, TypeError, OverflowError) as error:
            raise RefusedInput(f"{where}: {reading.name} = {reading.value!r} {reading.unit}: {error}") from None
        if attribute in values:
            unmapped.append(reading.name)
            continue
        mapped.append(reading.name)
        values[attribute] = value
    if not mapped:
        raise RefusedInput(f"{where}: none of its {len(readings)} characteristics is an NG.116 attribute known here")
    sst, sd = values.get("sst", 1), values.get("sd", NO_SD)
    if "sst" not in values:
        assumed.append("sst: 1 (eMBB), because no slice/service type is given")
    if "sd" not in values:
        assumed.append("sd: ffffff (no slice differentiator), because none is given")
    if "isolation" not in values:
        assumed.append("isolation: none, because no isolation level is given")
    try:
        profile = msgspec.convert([_default(values, name) for name in ServiceProfile.__struct_fields__], ServiceProfile)
        template = msgspec.convert(
            {"name": title, "section": "imported", "sst": sst, "sd": sd, "attributes": msgspec.to_builtins(profile),
             "sources": [where]},
            Template,
        )  # fmt: skip
    except msgspec.ValidationError as error:
        raise RefusedInput(f"{where}: {error}") from error
    return ImportedTemplate(template=template, mapped=tuple(mapped), unmapped=tuple(unmapped), assumed=tuple(assumed))


def _default(values: dict[str, Any], name: str) -> Any:
    if name in values:
        return values[name]
    return {"coverageArea": (), "isolation": "none"}.get(name)


def _readings(document: Any, where: str) -> tuple[list[_Reading], str]:
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    if not isinstance(document, dict):
        raise RefusedInput(f"{where}: a TMF633 service specification is one JSON object")
    for key in ("serviceSpecCharacteristic", "specCharacteristic", "serviceCharacteristic"):
        entries = document.get(key)
        if isinstance(entries, list) and entries:
            break
    else:
        raise RefusedInput(f"{where} has no serviceSpecCharacteristic, specCharacteristic or serviceCharacteristic")
    if len(entries) > MOST_CHARACTERISTICS:
        raise RefusedInput(f"{where}: more than {MOST_CHARACTERISTICS} characteristics")
    title = document.get("name")
    readings = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"].strip():
            raise RefusedInput(f"{where}: characteristic {number} has no name")
        value, unit = _value(entry)
        readings.append(_Reading(entry["name"].strip(), value, unit))
    return readings, title.strip()[:64] if isinstance(title, str) and title.strip() else "imported"


def _value(entry: dict[str, Any]) -> tuple[Any, str]:
    """Return value and unit of a characteristic: its default value, else its first one."""
    options = entry.get("serviceSpecCharacteristicValue") or entry.get("characteristicValueSpecification")
    chosen: Any = entry
    if isinstance(options, list) and options:
        usable = [option for option in options if isinstance(option, dict)]
        chosen = next((option for option in usable if option.get("isDefault") is True), usable[0] if usable else {})
    value = chosen.get("value")
    unit = chosen.get("unitOfMeasure") or entry.get("unitOfMeasure") or ""
    if isinstance(value, dict):
        unit = value.get("unitOfMeasure") or value.get("units") or unit
        value = value.get("value", value.get("amount"))
    return value, unit.strip() if isinstance(unit, str) else ""


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError("a number is expected")
    number = float(value)
    if not math.isfinite(number) or number < 0.0:
        raise ValueError("a finite number of at least 0 is expected")
    return number


def _scaled(scale: dict[str, float]) -> Callable[[Any, str], int]:
    def convert(value: Any, unit: str) -> int:
        if unit.lower() not in scale:
            raise ValueError(f"the unit must be one of {', '.join(name for name in scale if name)}")
        return round(_number(value) * scale[unit.lower()])

    return convert


def _count(value: Any, unit: str) -> int:
    return int(_number(value))


def _kept(value: Any, unit: str) -> int:
    return 1_000_000_000 - round(_number(value) * 1e9)


def _isolation(value: Any, unit: str) -> str:
    text = str(value).strip().lower()
    if text not in ISOLATION:
        raise ValueError("the isolation level must be none, physical or logical")
    return ISOLATION[text]


def _area(value: Any, unit: str) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else re.split(r"[,;]", str(value))
    return tuple(str(entry).strip()[:32] for entry in entries if str(entry).strip())


def _slice_type(value: Any, unit: str) -> int:
    text = str(value).strip().lower()
    return SLICE_TYPES[text] if text in SLICE_TYPES else int(_number(value))


def _differentiator(value: Any, unit: str) -> int:
    return value if isinstance(value, int) else int(str(value), 16)


Rule = tuple[str, Callable[[Any, str], Any], str]


def _rule(name: str) -> Rule | None:
    """Find what an NG.116 attribute maps to: ServiceProfile's name for it, the conversion, and NG.116's unit."""
    text = re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()
    for pattern, rule in RULES:
        if re.search(pattern, text):
            return rule
    return None


def _throughputs() -> list[tuple[str, Rule]]:
    rules: list[tuple[str, Rule]] = []
    for word, short in (("down ?link", "dL"), ("up ?link", "uL")):
        for scope, per in ((r"per (ue|device)", "PerUE"), (r"(per (network )?slice|network slice)", "PerSlice")):
            for kind, end in ((r"guaranteed", "Gua"), (r"max(imum)?", "Max")):
                rule: Rule = (f"{short}Thpt{per}{end}", _scaled(KBPS), "kbps")
                rules.append((rf"(?=.*\b{word})(?=.*throughput)(?=.*{scope})(?=.*\b{kind})", rule))
    return rules


RULES: tuple[tuple[str, Rule], ...] = (
    *_throughputs(),
    (r"packet delay budget|^max(imum)? (end to end )?latency|^latency$", ("latency", _scaled(MICROS), "ms")),
    (r"packet error rate", ("reliability", _kept, "")),
    (r"^reliability$", ("reliability", _scaled(PARTS), "%")),
    (r"^availability$", ("availability", _scaled(PARTS), "%")),
    (r"survival time", ("survivalTime", _scaled(MICROS), "ms")),
    (r"^(maximum )?number of (ues|terminals|devices)( per network slice)?$", ("maxNumberofUEs", _count, "")),
    (r"^area of service( region specification)?$|^region specification$|^coverage area$", ("coverageArea", _area, "")),
    (r"^isolation( level)?$", ("isolation", _isolation, "")),
    (r"^(s nssai )?(slice service type|service slice type|sst)( sst)?$", ("sst", _slice_type, "")),
    (r"^(s nssai )?(slice differentiator|sd)( sd)?$", ("sd", _differentiator, "")),
)
