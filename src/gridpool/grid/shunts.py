"""Capacitors and generators of a feeder, phase by phase: what can be dispatched."""

import numpy as np

from gridpool.grid.feeder import Feeder

__all__ = ["Shunt", "capacitor_shunts", "generator_shunts"]


class Shunt:
    """A controllable generator phase or capacitor phase, as the replay and the linear model see it."""

    __slots__ = ("bus", "connection", "kind", "kv", "name", "node", "phases", "rating_va")

    def __init__(
        self, *, name: str, kind: str, bus: str, node: str, phases: tuple[int, ...], connection: str, kv: float,
        rating_va: float,
    ) -> None:  # fmt: skip
        self.name, self.kind, self.bus, self.node = name, kind, bus, node
        self.phases, self.connection, self.kv, self.rating_va = phases, connection, kv, rating_va


def capacitor_shunts(feeder: Feeder) -> list[Shunt]:
    """List the capacitors of a feeder phase by phase."""
    shunts = []
    booked = {d.name: d.node for d in feeder.devices if d.kind == "capacitor"}
    for c in feeder.facts.capacitors:
        parts: list[tuple[int, ...]] = [(p,) for p in c.phases]
        kv = c.kv if len(parts) == 1 else c.kv / float(np.sqrt(3.0))
        if c.connection == "delta":
            parts, kv = ([(1, 2), (2, 3), (3, 1)] if len(c.phases) == 3 else [c.phases]), c.kv
        shunts += [
            Shunt(
                name=c.name, kind="capacitor", bus=c.bus, node=booked.get(c.name, ""), phases=part,
                connection=c.connection, kv=kv, rating_va=c.kvar * 1e3 / len(parts),
            )
            for part in parts
        ]  # fmt: skip
    return shunts


def generator_shunts(feeder: Feeder, dg_share: float) -> list[Shunt]:
    """List the generators phase by phase; unrated ones share ``dg_share`` of the nominal load."""
    booked = {d.name: d.node for d in feeder.devices if d.kind == "generator"}
    unrated = sum(g.kw is None for g in feeder.facts.generators)
    shunts = []
    for g in feeder.facts.generators:
        rating = g.kw * 1e3 if g.kw is not None else dg_share * feeder.nominal_w / unrated
        kv = feeder.base_kv[g.bus]
        parts: list[tuple[int, ...]] = [(p,) for p in g.phases]
        line_to_line = g.bus in feeder.delta_buses
        if line_to_line:
            parts = [(1, 2), (2, 3), (3, 1)] if len(g.phases) == 3 else [g.phases]
        shunts += [
            Shunt(
                name=g.name, kind="generator", bus=g.bus, node=booked.get(g.name, ""), phases=part,
                connection="delta" if line_to_line else "wye", kv=kv if line_to_line else kv / float(np.sqrt(3.0)),
                rating_va=rating / len(parts),
            )
            for part in parts
        ]  # fmt: skip
    return shunts
