"""Served power: the most load that a feeder can carry within its limits under given links.

S(M, U) is the largest nominal power over set points of the devices in U and served fractions of every load phase such
that every energised voltage stays within its limits for every demand within the blind error, where only the loads at
nodes in M are known exactly. It is a maximal load delivery with restricted controls and robust limits; the study that
asked for it leaves these choices open.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Literal

from gridpool.errors import RefusedInput
from gridpool.grid.certification import Certificate, Formulation, ServedModel, ServedPower
from gridpool.grid.feeder import Feeder
from gridpool.grid.semidefinite import Components

__all__ = ["ServedPower", "score", "served_model", "served_power"]


def served_power(
    feeder: Feeder,
    observed: Collection[str],
    controlled: Collection[str],
    *,
    demand_scale: float | Mapping[str, float] = 1.0,
    blind_error: float = 0.5,
    dg_share: float = 0.2,
    formulation: Formulation = "linear",
    certify: Certificate = "worst_case",
    lower_pu: float | None = None,
    upper_pu: float | None = None,
    default_taps: Literal["neutral", "published"] = "neutral",
    default_capacitors: Literal["off", "on"] = "off",
    default_generation: float = 0.0,
    reactive_share: float = 0.44,
    both_slices: bool = False,
    switchable: bool = False,
    failed: Collection[str] = (),
    components: Components = "phase",
) -> ServedPower:
    """Compute S(M, U) and certify it by replay in OpenDSS.

    Parameters
    ----------
    feeder
        The feeder.
    observed
        M: nodes whose demand is known.
    controlled
        U: nodes whose devices take any set point; nodes without a device do not matter.
    demand_scale
        Factor on the nominal demand, one for all or one a node (1 where a node is missing).
    blind_error
        Demand of an unobserved load lies within ``1 - blind_error`` and ``1 + blind_error`` times its value.
    dg_share
        Rating of all unrated generators together, as a share of the feeder's nominal load.
    formulation
        ``linear`` (LinDist3Flow with replay) or ``sdp`` (branch-flow relaxation with replay).
    certify
        ``worst_case`` replays the worst demands of every voltage limit, ``nominal`` only the nominal one.
    lower_pu, upper_pu
        Voltage limits; the feeder's own by default.
    default_taps, default_capacitors, default_generation
        What devices without control do: taps neutral or as published, capacitors off or on, generators at a
        fraction of their rating.
    reactive_share
        Reactive range of a generator as a share of its rating.
    both_slices
        Whether a device needs its node observed as well.
    switchable
        Whether a load phase is served whole or not at all, rather than in any part.
    failed
        Nodes that are out with their lines; what lies beyond them is dark.
    components
        Coordinates of three-phase branches in the ``sdp`` formulation: ``phase`` or ``symmetrical``.

    Returns
    -------
    ServedPower
        Served power in W with voltages and set points.

    Raises
    ------
    RefusedInput
        For an unknown node, a parameter out of range, or limits that no set point meets even at zero load.
    """
    if formulation not in ("linear", "sdp"):
        raise RefusedInput(f"no formulation {formulation!r}; choose linear or sdp")
    if certify not in ("worst_case", "nominal"):
        raise RefusedInput(f"no certificate {certify!r}; choose worst_case or nominal")
    model = served_model(
        feeder, blind_error=blind_error, dg_share=dg_share, lower_pu=lower_pu, upper_pu=upper_pu,
        default_taps=default_taps, default_capacitors=default_capacitors, default_generation=default_generation,
        reactive_share=reactive_share, both_slices=both_slices, switchable=switchable,
    )  # fmt: skip
    return model.served(
        observed, controlled, demand_scale=demand_scale, certify=certify, failed=failed, formulation=formulation,
        components=components,
    )  # fmt: skip


def score(
    feeder: Feeder,
    observed: Collection[str],
    controlled: Collection[str],
    *,
    demand_scale: float | Mapping[str, float] = 1.0,
    blind_error: float = 0.5,
    dg_share: float = 0.2,
    certify: Certificate = "worst_case",
) -> float:
    """Give S(M, U) / S(all, all) in 0..1."""
    part = served_power(
        feeder, observed, controlled,
        demand_scale=demand_scale, blind_error=blind_error, dg_share=dg_share, certify=certify,
    )  # fmt: skip
    full = served_power(
        feeder, feeder.nodes, feeder.nodes,
        demand_scale=demand_scale, blind_error=blind_error, dg_share=dg_share, certify=certify,
    )  # fmt: skip
    return 1.0 if full.served_w <= 0.0 else min(1.0, part.served_w / full.served_w)


_MODELS: OrderedDict[tuple[object, ...], ServedModel] = OrderedDict()
MODELS_KEPT = 16


def served_model(
    feeder: Feeder,
    *,
    blind_error: float = 0.5,
    dg_share: float = 0.2,
    lower_pu: float | None = None,
    upper_pu: float | None = None,
    default_taps: Literal["neutral", "published"] = "neutral",
    default_capacitors: Literal["off", "on"] = "off",
    default_generation: float = 0.0,
    reactive_share: float = 0.44,
    both_slices: bool = False,
    switchable: bool = False,
) -> ServedModel:
    """Give the model of a feeder under these options, built once; the parameters are those of ``served_power``."""
    options = (
        blind_error, dg_share, lower_pu, upper_pu, default_taps, default_capacitors, default_generation,
        reactive_share, both_slices, switchable,
    )  # fmt: skip
    key = (id(feeder), *options)
    model = _MODELS.get(key)
    if model is None or model.feeder is not feeder:
        model = _MODELS[key] = ServedModel(feeder, *options)
        while len(_MODELS) > MODELS_KEPT:
            _MODELS.popitem(last=False)
    _MODELS.move_to_end(key)
    return model
