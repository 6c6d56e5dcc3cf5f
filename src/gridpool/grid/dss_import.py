"""Feeders from OpenDSS master files, read through the engine in a process of their own.

The engine is native code and the file may be hostile: the child process has a time and memory limit, so that neither
a crash nor an endless loop reaches the caller, and the caller's own engine keeps its state.
"""

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from gridpool.errors import RefusedInput
from gridpool.grid.dss_statements import Script, read_script
from gridpool.grid.facts import (
    Capacitor,
    Connection,
    Device,
    Facts,
    Generator,
    Line,
    LineCode,
    Load,
    Source,
    Transformer,
    Winding,
)

__all__ = ["import_dss"]

TIME_LIMIT_S = 60
MEMORY_LIMIT_BYTES = 4 << 30
HIGH_SOURCE_PU = 1.045
SOURCE_ROOM_PU = 0.008
"""Room above a source that stands near 1.05 p.u., where line charging lifts the voltage (as on the 34)."""

UNIT_M = {"mi": 1609.344, "kft": 304.8, "km": 1000.0, "m": 1.0, "ft": 0.3048, "in": 0.0254, "cm": 0.01, "mm": 0.001}


class _Answer(msgspec.Struct):
    facts: Facts | None = None
    refused: str = ""


def import_dss(master: Path) -> Facts:
    """Read an OpenDSS master file as the facts of a feeder.

    Raises RefusedInput for anything that is not a plain circuit (see ``dss_statements``), that the engine refuses or
    that breaks the engine.
    """
    script = read_script(master)
    try:
        child = subprocess.run(
            [sys.executable, "-m", "gridpool.grid.dss_import"],
            input=msgspec.json.encode((re.sub(r"[^a-z0-9_.:-]", "-", master.stem.lower())[:100], script)),
            capture_output=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RefusedInput(f"{master.name}: the engine did not finish reading it in {TIME_LIMIT_S} s") from None
    if child.returncode != 0:
        raise RefusedInput(f"{master.name}: the engine broke off while reading it (exit {child.returncode})")
    try:
        answer = msgspec.json.decode(child.stdout, type=_Answer)
    except msgspec.MsgspecError as error:
        raise RefusedInput(f"{master.name}: it describes no feeder that can be used: {error}") from error
    if answer.facts is None:
        raise RefusedInput(f"{master.name}: {answer.refused}")
    return answer.facts


def _child() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (TIME_LIMIT_S, TIME_LIMIT_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    name, script = msgspec.json.decode(sys.stdin.buffer.read(), type=tuple[str, Script])
    try:
        answer = _Answer(facts=_read_circuit(name, script))
    except RefusedInput as error:
        answer = _Answer(refused=str(error))
    sys.stdout.buffer.write(msgspec.json.encode(answer))


def _read_circuit(name: str, script: Script) -> Facts:
    from dss import DSS, DSSException

    DSS.AllowForms = False
    DSS.AllowEditor = False
    DSS.AllowChangeDir = False
    DSS.AllowDOScmd = False
    DSS.Text.Command = "clear"
    for statement in script.statements:
        try:
            DSS.Text.Command = statement.text
        except DSSException as error:
            raise RefusedInput(f"{statement.where}: {' '.join(str(error).split())[:300]}") from error
    try:
        circuit = DSS.ActiveCircuit
        circuit.Solution.Mode = 0
        DSS.Text.Command = "set controlmode=off"
        DSS.Text.Command = "makebuslist"
        return _Reader(circuit).facts(name, script)
    except DSSException as error:
        raise RefusedInput(f"the engine cannot describe the circuit: {' '.join(str(error).split())[:300]}") from error


class _Reader:
    """Turns the engine's elements into rows; one engine, one circuit, one pass."""

    def __init__(self, circuit: Any) -> None:
        self.circuit = circuit
        self.codes: dict[str, LineCode] = {}

    def facts(self, name: str, script: Script) -> Facts:
        source = self._source()
        lines = [line for line in map(self._line, self._names("line")) if line]
        regulated = self._regulated()
        transformers = [t for n in self._names("transformer") if (t := self._transformer(n, n in regulated))]
        loads = [row for row in map(self._load, self._names("load")) if row]
        capacitors = [row for row in map(self._capacitor, self._names("capacitor")) if row]
        generators = [
            made for kind in ("generator", "pvsystem") for g in self._names(kind) if (made := self._generator(kind, g))
        ]
        devices = [Device(name=c.name, kind="capacitor", node=c.bus) for c in capacitors]
        devices += [Device(name=s.name, kind="switch", node=s.from_bus) for s in lines if s.switch and not s.open]
        banks = {(t.bank or t.name): t.primary.bus for t in transformers if t.regulator}
        devices += [Device(name=bank, kind="regulator", node=bus) for bank, bus in banks.items()]
        devices += [Device(name=g.name, kind="generator", node=g.bus) for g in generators]
        return Facts(
            name=name,
            upper_pu=1.05 if source.pu < HIGH_SOURCE_PU else _round(max(1.05, source.pu + SOURCE_ROOM_PU)),
            source=source,
            nodes={},
            line_codes=list(self.codes.values()),
            lines=lines,
            transformers=transformers,
            loads=loads,
            capacitors=capacitors,
            generators=generators,
            devices=devices,
            coordinates=script.coordinates,
        )

    def _names(self, kind: str) -> list[str]:
        self.circuit.SetActiveClass(kind)
        return [n.lower() for n in self.circuit.ActiveClass.AllNames if n and n.lower() != "none"]

    def _open(self, element: str) -> dict[str, str] | None:
        """Make an element active and give its properties; None if it is disabled."""
        self.circuit.SetActiveElement(element)
        active = self.circuit.ActiveCktElement
        if not active.Enabled:
            return None
        return {p.lower(): active.Properties(p).Val for p in active.AllPropertyNames}

    def _source(self) -> Source:
        row = self._open("vsource.source")
        if row is None or row["phases"] != "3":
            raise RefusedInput("the source must be enabled and have three phases")
        return Source(
            bus=_bus(row["bus1"]),
            kv=_number(row["basekv"]),
            pu=_number(row["pu"]),
            angle_deg=_number(row["angle"]),
            r1_ohm=_number(row["r1"]),
            x1_ohm=_number(row["x1"]),
            r0_ohm=_number(row["r0"]),
            x0_ohm=_number(row["x0"]),
        )

    def _line(self, name: str) -> Line | None:
        row = self._open(f"line.{name}")
        if row is None:
            return None
        active = self.circuit.ActiveCktElement
        count = int(row["phases"])
        first, second = _phases(row["bus1"], count), _phases(row["bus2"], count)
        if first != second:
            raise RefusedInput(f"line {name} changes its phases on the way ({row['bus1']} to {row['bus2']})")
        is_open = bool(active.IsOpen(1, 0) or active.IsOpen(2, 0))
        self.circuit.Lines.Name = name
        api = self.circuit.Lines
        length = float(api.Length)
        unit = row["units"].lower()
        code = row["linecode"].lower()
        matrices = [m.reshape(count, count) for m in (api.Rmatrix, api.Xmatrix, api.Cmatrix)]
        if unit == "none" and code:
            self.circuit.SetActiveElement(f"line.{name}")
            self.circuit.SetActiveClass("linecode")
            self.circuit.LineCodes.Name = code
            unit = _CODE_UNITS[int(self.circuit.LineCodes.Units)]
        metres = length * UNIT_M.get(unit, 1000.0)
        per_km = [_triangle(m * (length / metres * 1000.0)) for m in matrices]
        return Line(
            name=name,
            from_bus=_bus(row["bus1"]),
            to_bus=_bus(row["bus2"]),
            phases=first,
            code=self._code(code or f"own-{name}", per_km),
            length_m=_round(metres),
            switch=row["switch"].lower() in {"yes", "true"},
            open=is_open,
        )

    def _code(self, name: str, matrices: list[list[list[float]]]) -> str:
        code = LineCode(name=name, r_ohm_per_km=matrices[0], x_ohm_per_km=matrices[1], c_nf_per_km=matrices[2])
        for known in self.codes.values():
            same = (known.r_ohm_per_km, known.x_ohm_per_km, known.c_nf_per_km) == tuple(matrices)
            if same and (known.name == name or name.startswith("own-")):
                return known.name
        unique, number = name, 1
        while unique in self.codes:
            number += 1
            unique = f"{name}-{number}"
        self.codes[unique] = msgspec.structs.replace(code, name=unique)
        return unique

    def _regulated(self) -> set[str]:
        found = set()
        for name in self._names("regcontrol"):
            row = self._open(f"regcontrol.{name}")
            if row is not None:
                found.add(row["transformer"].lower())
        return found

    def _transformer(self, name: str, regulated: bool) -> Transformer | None:
        row = self._open(f"transformer.{name}")
        if row is None:
            return None
        if row["windings"] != "2":
            raise RefusedInput(f"transformer {name} has {row['windings']} windings; only two can be modelled")
        count = int(row["phases"])
        buses, conns = _items(row["buses"]), _items(row["conns"])
        kvs, kvas, rs, taps = (_numbers(row[key]) for key in ("kvs", "kvas", "%rs", "taps"))
        windings = []
        for bus, conn, kv, kva, r in zip(buses, conns, kvs, kvas, rs, strict=True):
            connection: Connection = "delta" if conn.lower() in {"delta", "ll"} else "wye"
            terminals = count if connection == "wye" or count == 3 else 2
            windings.append(
                Winding(
                    bus=_bus(bus), phases=_phases(bus, terminals), connection=connection, kv=kv, kva=kva, r_percent=r
                )
            )
        steps = (taps[1] / taps[0] - 1.0) / 0.00625
        if not regulated and abs(steps - round(steps)) > 1e-6:
            raise RefusedInput(f"transformer {name} has a fixed tap off the 5/8 % grid; put it into the rated voltages")
        return Transformer(
            name=name,
            bank=row["bank"].lower() or None,
            phase_count=count,
            primary=windings[0],
            secondary=windings[1],
            x_percent=_number(row["xhl"]),
            antifloat_ppm=_number(row["ppm_antifloat"]),
            regulator=regulated,
            tap=round(steps),
        )

    def _load(self, name: str) -> Load | None:
        row = self._open(f"load.{name}")
        if row is None:
            return None
        count, connection = int(row["phases"]), _connection(row["conn"])
        model = int(row["model"])
        if model > 5 or (model == 4 and (_number(row["cvrwatts"]), _number(row["cvrvars"])) != (1.0, 2.0)):
            raise RefusedInput(f"load {name} has model {model}; write it as model 1, 2, 3 or 5")
        terminals = count if connection == "wye" or count == 3 else 2
        if terminals == 2 and connection == "delta" and 0 in list(self.circuit.ActiveCktElement.NodeOrder)[:2]:
            connection, terminals = "wye", 1  # a line-to-line load with one phase named hangs between it and ground
        return Load(
            name=name,
            bus=_bus(row["bus1"]),
            phases=_phases(row["bus1"], terminals),
            connection=connection,
            model=model,
            kv=_number(row["kv"]),
            kw=_number(row["kw"]),
            kvar=_number(row["kvar"]),
        )

    def _capacitor(self, name: str) -> Capacitor | None:
        row = self._open(f"capacitor.{name}")
        if row is None:
            return None
        if _bus(row["bus2"]) != _bus(row["bus1"]):
            raise RefusedInput(f"capacitor {name} lies in series between two buses; only shunt capacitors are modelled")
        count, connection = int(row["phases"]), _connection(row["conn"])
        return Capacitor(
            name=name,
            bus=_bus(row["bus1"]),
            phases=_phases(row["bus1"], count if connection == "wye" or count == 3 else 2),
            connection=connection,
            kv=_number(row["kv"]),
            kvar=sum(_numbers(row["kvar"])),
        )

    def _generator(self, kind: str, name: str) -> Generator | None:
        row = self._open(f"{kind}.{name}")
        if row is None:
            return None
        rating = _number(row["kw" if kind == "generator" else "pmpp"])
        return Generator(name=name, bus=_bus(row["bus1"]), phases=_phases(row["bus1"], int(row["phases"])), kw=rating)


_CODE_UNITS = ("none", "mi", "kft", "km", "m", "ft", "in", "cm", "mm")


def _connection(text: str) -> Connection:
    return "delta" if text.lower() in {"delta", "ll"} else "wye"


def _bus(text: str) -> str:
    return text.split(".", maxsplit=1)[0].lower()


def _phases(text: str, count: int) -> tuple[int, ...]:
    named = [int(part) for part in text.split(".")[1:] if part]
    chosen = tuple(phase for phase in named[:count] if phase) or tuple(range(1, count + 1))
    if len(chosen) != count or not set(chosen) <= {1, 2, 3} or len(set(chosen)) != count:
        raise RefusedInput(f"terminal {text} does not name {count} of the phases 1, 2 and 3")
    return chosen


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise RefusedInput(f"{text} is not a number a feeder can have")
    return _round(value)


def _numbers(text: str) -> list[float]:
    return [_number(item) for item in _items(text)]


def _items(text: str) -> list[str]:
    return [item for item in text.strip("[]() ").replace(",", " ").split() if item]


def _round(value: float) -> float:
    """Drop the noise of unit conversions beyond 12 significant digits."""
    return float(f"{value:.12g}")


def _triangle(matrix: Any) -> list[list[float]]:
    return [[_round(float(matrix[i, j])) for j in range(i + 1)] for i in range(matrix.shape[0])]


if __name__ == "__main__":
    _child()
