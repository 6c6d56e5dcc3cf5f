"""Replay: OpenDSS power flow of given set points, the judge of every formulation.

There is one engine in a process and it holds one circuit: a ``Replay`` writes its circuit into the engine when it is
used and another one was there before. Every load item, generator phase and capacitor is a load of the engine, so that
one call changes them all.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gridpool.errors import GridpoolError, RefusedInput
from gridpool.grid.facts import Source, Transformer, Winding
from gridpool.grid.feeder import Feeder, LoadItem, full_matrix
from gridpool.grid.shunts import Shunt

__all__ = ["TAP_STEP", "NotConverged", "Replay"]

TAP_STEP = 0.1 / 16.0
"""Ratio of one tap step: 16 steps cover 10 %."""

TOLERANCE = 1e-8
FULL_VOLTAGE_PU = (0.3, 1.7)
"""Band in which loads keep their model; the engine's own 0.95-1.05 turns them into impedances outside it."""

Vector = NDArray[np.float64]


class NotConverged(GridpoolError):
    """The power flow of these set points has no solution that the engine finds (voltage collapse)."""


class Replay:
    """The feeder in the engine: set powers and taps, solve, read voltages. Not for use by two threads at once.

    ``observations`` lists (bus, phases): one entry a phase, or a pair of phases at buses without ground.
    """

    _active: "Replay | None" = None

    def __init__(self, feeder: Feeder, shunts: tuple[Shunt, ...] = ()) -> None:
        self.feeder = feeder
        self.shunts = shunts
        self.items: tuple[LoadItem, ...] = feeder.loads
        self.tap_names = tuple(t.name for t in feeder.facts.transformers if t.regulator)
        self._taps: dict[str, int] = {}
        self._p_kw = np.zeros(len(self.items) + len(shunts))
        self._q_kvar = np.zeros_like(self._p_kw)
        self.observations = feeder.observations

    # ---- the circuit in the engine -------------------------------------------------------------------------------

    def activate(self) -> None:
        """Put this feeder into the engine, if another one is there."""
        if Replay._active is self:
            return
        from dss import DSS, DSSException

        Replay._active = None
        self._engine: Any = DSS
        DSS.AllowForms = False
        DSS.AllowChangeDir = False
        try:
            for command in self.commands():
                DSS.Text.Command = command
        except DSSException as error:
            raise RefusedInput(f"{self.feeder.name}: the engine refuses it: {' '.join(str(error).split())}") from error
        self._circuit: Any = DSS.ActiveCircuit
        self._solution: Any = self._circuit.Solution
        self._solution.SolveNoControl()
        self._index()
        self._taps = dict.fromkeys(self.tap_names, 0)
        Replay._active = self

    def commands(self) -> list[str]:
        """Write the feeder as engine statements."""
        facts = self.feeder.facts
        codes = {code.name: code for code in facts.line_codes}
        out = ["clear", f"set defaultbasefrequency={facts.frequency_hz!r}", _source(facts.source)]
        for t in facts.transformers:
            out.append(_transformer(t))
        for line in facts.lines:
            code, km = codes[line.code], line.length_m / 1000.0
            nodes = "." + ".".join(map(str, line.phases))
            if line.open:
                continue
            matrices = (code.r_ohm_per_km, code.x_ohm_per_km, code.c_nf_per_km)
            r, x, c = (_matrix(full_matrix(triangle) * km) for triangle in matrices)
            out.append(
                f"new line.{line.name} phases={len(line.phases)} bus1={line.from_bus}{nodes} bus2={line.to_bus}{nodes} "
                f"length=1 units=none rmatrix={r} xmatrix={x} cmatrix={c}"
            )
        low, high = FULL_VOLTAGE_PU
        for number, item in enumerate(self.items):
            out.append(
                f"new load.l{number} bus1={item.bus}.{'.'.join(map(str, item.phases))} phases=1 conn={item.connection} "
                f"model={item.model} kv={item.kv!r} kw={item.power_w / 1e3!r} kvar={item.reactive_var / 1e3!r} "
                f"vminpu={low} vmaxpu={high} vlowpu=0.1"
            )
        for number, shunt in enumerate(self.shunts, start=len(self.items)):
            model = 2 if shunt.kind == "capacitor" else 1
            out.append(
                f"new load.l{number} bus1={shunt.bus}.{'.'.join(map(str, shunt.phases))} phases=1 "
                f"conn={shunt.connection} model={model} kv={shunt.kv!r} kw=0 kvar=0 vminpu={low} vmaxpu={high} "
                "vlowpu=0.1"
            )
        bases = sorted(set(self.feeder.base_kv.values()), reverse=True)
        out += [
            f"set voltagebases=[{' '.join(map(repr, bases))}]",
            "calcvoltagebases",
            f"set controlmode=off tolerance={TOLERANCE!r} maxiterations=200",
        ]
        return out

    def _index(self) -> None:
        position = {name.lower(): i for i, name in enumerate(self._circuit.AllNodeNames)}
        ground = len(position)
        first, second, base = [], [], []
        for bus, phases in self.observations:
            kv = self.feeder.base_kv[bus]
            first.append(position[f"{bus}.{phases[0]}"])
            second.append(position[f"{bus}.{phases[1]}"] if len(phases) == 2 else ground)
            base.append(kv * 1e3 if len(phases) == 2 else kv * 1e3 / np.sqrt(3.0))
        self._first, self._second, self._base = np.array(first), np.array(second), np.array(base)
        one = [position[f"{item.bus}.{item.phases[0]}"] for item in self.items]
        two = [position[f"{i.bus}.{i.phases[1]}"] if len(i.phases) == 2 else ground for i in self.items]
        self._item_first, self._item_second = np.array(one, dtype=int), np.array(two, dtype=int)
        self._item_volt = np.array([item.kv * 1e3 for item in self.items])
        util = self._engine._api_util
        self._lib, self._ffi = util.lib, util.ffi
        kind = self._engine.SetActiveClass("load")
        pointer, count = self._ffi.new("void***"), self._ffi.new("int32_t[4]")
        self._lib.Batch_CreateByClass(pointer, count, kind)
        self._batch, self._count = pointer[0], int(count[0])
        names = [n.lower() for n in self._circuit.ActiveClass.AllNames] if self._count else []
        if self._count != len(self._p_kw) or names[: self._count] != [f"l{i}" for i in range(self._count)]:
            raise GridpoolError("the engine lists its loads in another order than they were written")
        element_properties = self._property_numbers()
        self._kw, self._kvar = element_properties["kw"], element_properties["kvar"]
        self._sent_p = np.array([i.power_w / 1e3 for i in self.items] + [0.0] * len(self.shunts))
        self._sent_q = np.array([i.reactive_var / 1e3 for i in self.items] + [0.0] * len(self.shunts))

    def _property_numbers(self) -> dict[str, int]:
        if not self._count:
            return {"kw": 0, "kvar": 0}
        self._circuit.SetActiveElement("load.l0")
        names = [p.lower() for p in self._circuit.ActiveCktElement.AllPropertyNames]
        return {name: number for number, name in enumerate(names, start=1)}

    # ---- set points ----------------------------------------------------------------------------------------------

    def set_powers(self, power_w: Vector, reactive_var: Vector) -> None:
        """Set drawn power of every load item, then every shunt (negative: fed in), W and var at rated voltage."""
        self.activate()
        self._send(self._kw, power_w, self._sent_p, force=False)
        # the engine recomputes kvar from a power factor when kW changes, so kvar is always sent after it
        self._send(self._kvar, reactive_var, self._sent_q, force=True)

    def _send(self, number: int, values: Vector, sent: Vector, *, force: bool) -> None:
        kilo = values * 1e-3
        if not self._count or (not force and np.array_equal(kilo, sent)):
            return
        sent[:] = kilo
        data = self._ffi.cast("double*", sent.ctypes.data)
        self._lib.Batch_SetFloat64Array(self._batch, self._count, number, data, 0)

    def set_taps(self, taps: Mapping[str, int]) -> None:
        """Set tap positions (1/16 of 10 % each) of regulators by transformer name; others stay."""
        self.activate()
        for name, position in taps.items():
            if self._taps[name] != position:
                self._circuit.Transformers.Name = name
                self._circuit.Transformers.Wdg = 2
                self._circuit.Transformers.Tap = 1.0 + TAP_STEP * position
                self._taps[name] = position

    def restart(self) -> None:
        """Forget earlier solutions: no load, neutral taps, a direct solution. What follows repeats to the bit."""
        self.activate()
        self.set_taps(dict.fromkeys(self.tap_names, 0))
        self.set_powers(np.zeros_like(self._p_kw), np.zeros_like(self._q_kvar))
        self._solution.SolveDirect()

    def solve(self) -> Vector:
        """Solve and give the voltage magnitude of every observation in p.u.; NotConverged if there is none."""
        self.activate()
        self._solution.SolveNoControl()
        if not self._solution.Converged:
            raise NotConverged(f"{self.feeder.name}: the power flow of these set points does not converge")
        volts = self._volts()
        magnitudes: Vector = np.abs(volts[self._first] - volts[self._second]) / self._base
        return magnitudes

    def _volts(self) -> NDArray[np.complex128]:
        raw = np.asarray(self._circuit.AllBusVolts)
        volts = np.empty(raw.size // 2 + 1, dtype=np.complex128)
        volts[:-1] = raw.view(np.complex128) if raw.dtype == np.float64 else raw
        volts[-1] = 0.0
        return volts

    def load_voltages(self) -> Vector:
        """Give the voltage at every load item in the last solution, as a share of its rated voltage."""
        volts = self._volts()
        share: Vector = np.abs(volts[self._item_first] - volts[self._item_second]) / self._item_volt
        return share

    def node_volts(self) -> dict[tuple[str, int], complex]:
        """Give the complex voltage to ground of every (bus, phase) of the last solution, in V."""
        volts = self._volts()
        return {
            (name.split(".")[0].lower(), int(name.split(".")[1])): complex(volts[i])
            for i, name in enumerate(self._circuit.AllNodeNames)
        }

    def source_power(self) -> complex:
        """Give the power that the source delivers in the last solution, W and var."""
        power = np.asarray(self._circuit.TotalPower).ravel()
        value = complex(power[0]) if np.iscomplexobj(power) else complex(power[0], power[1])
        return -value * 1e3

    def loss_w(self) -> float:
        """Give the losses of the last solution in W."""
        loss = np.asarray(self._circuit.Losses).ravel()
        return float(loss[0].real)


def _source(source: Source) -> str:
    return (
        f"new circuit.feeder bus1={source.bus} basekv={source.kv!r} pu={source.pu!r} angle={source.angle_deg!r} "
        f"phases=3 r1={source.r1_ohm!r} x1={source.x1_ohm!r} r0={source.r0_ohm!r} x0={source.x0_ohm!r}"
    )


def _winding(number: int, winding: Winding) -> str:
    nodes = ".".join(map(str, winding.phases))
    return (
        f"wdg={number} bus={winding.bus}.{nodes} conn={winding.connection} kv={winding.kv!r} kva={winding.kva!r} "
        f"%r={winding.r_percent!r}"
    )


def _transformer(t: Transformer) -> str:
    return (
        f"new transformer.{t.name} phases={t.phase_count} windings=2 xhl={t.x_percent!r} "
        f"ppm_antifloat={t.antifloat_ppm!r} {_winding(1, t.primary)} {_winding(2, t.secondary)}"
    )


def _matrix(values: NDArray[np.float64]) -> str:
    return "[" + " | ".join(" ".join(repr(float(v)) for v in row[: i + 1]) for i, row in enumerate(values)) + "]"
