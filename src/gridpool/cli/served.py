"""``gridpool served`` and ``gridpool opf``: the load a feeder can carry under given links, and optimal power flows."""

from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from gridpool.cli.output import emit, progress

__all__ = ["opf", "served"]


def served(
    *,
    feeder: str,
    observed: str,
    controlled: str,
    formulation: Literal["linear", "sdp", "both"] = "linear",
    blind_error: float = 0.5,
    dg_share: float = 0.2,
    certify: Literal["worst_case", "nominal"] = "worst_case",
    lower_pu: float | None = None,
    upper_pu: float | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Compute the load that can be served when only some nodes are observed and controlled.

    Example: ``gridpool served --feeder ieee13 --observed all --controlled 650,675``

    Parameters
    ----------
    feeder
        Packaged name, OpenDSS master (.dss) or feeder file (.json).
    observed
        ``all``, ``none`` or node names separated by commas: whose demand is known.
    controlled
        ``all``, ``none`` or node names separated by commas: whose devices take any set point.
    formulation
        ``linear``, ``sdp`` or ``both`` (the linear result with the other beside it).
    blind_error
        Demand of an unobserved load lies within 1 - e and 1 + e times its value.
    dg_share
        Rating of all generators together as a share of the feeder's load.
    certify
        Replay the worst demands of every voltage limit, or only the nominal demand.
    lower_pu
        Lower voltage limit; the feeder's own by default.
    upper_pu
        Upper voltage limit; the feeder's own by default.
    json
        Print one JSON object.
    """
    from gridpool.grid.feeder import load_feeder
    from gridpool.grid.served import served_power

    f = load_feeder(feeder)
    seen, steered = parse_nodes(observed, f.nodes), parse_nodes(controlled, f.nodes)
    f.require_nodes([*seen, *steered])

    def solve(kind: Literal["linear", "sdp"]) -> dict[str, Any]:
        part, full = (
            served_power(
                f,
                m,
                u,
                blind_error=blind_error,
                dg_share=dg_share,
                formulation=kind,
                certify=certify,
                lower_pu=lower_pu,
                upper_pu=upper_pu,
            )
            for m, u in ((seen, steered), (f.nodes, f.nodes))
        )
        result: dict[str, Any] = msgspec.to_builtins(part)
        result["score"] = 1.0 if full.served_w <= 0.0 else min(1.0, part.served_w / full.served_w)
        return result

    with progress("served power", 2 if formulation == "both" else 1) as advance:
        result = solve("linear" if formulation == "both" else formulation)
        advance()
        if formulation == "both":
            result["formulation"] = "both"
            result["sdp"] = solve("sdp")
            advance()
    shown = {k: result[k] for k in ("served_w", "nominal_w", "served_share", "score", "max_violation_pu", "rounds")}
    shown |= {k: result[k] for k in ("formulation", "certified", "eigenvalue_ratio", "lower_pu", "upper_pu", "taps")}
    width = max(map(len, shown))
    text = "\n".join(f"{k.replace('_', ' '):<{width}}  {v}" for k, v in shown.items())
    emit(result, json=json, text=text)


def opf(
    *,
    feeder: str,
    objective: Literal["cost", "served"],
    formulation: Literal["sdp", "linear"] = "sdp",
    source_price: float = 1.0,
    generation_price: float = 0.0,
    dg_share: float = 0.2,
    components: Literal["phase", "symmetrical"] = "phase",
    lower_pu: float | None = None,
    upper_pu: float | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Solve an optimal power flow with every device controlled, and replay its set points.

    Example: ``gridpool opf --feeder ieee13 --objective cost``

    Parameters
    ----------
    feeder
        Packaged name, OpenDSS master (.dss) or feeder file (.json).
    objective
        Least cost of generation for all load, or most load served.
    formulation
        Branch-flow semidefinite relaxation or LinDist3Flow.
    source_price
        Price of a watt from the source.
    generation_price
        Price of a watt from a generator.
    dg_share
        Rating of all generators together as a share of the feeder's load.
    components
        Write three-phase branches of the relaxation in phases or in symmetrical components.
    lower_pu
        Lower voltage limit; the feeder's own by default.
    upper_pu
        Upper voltage limit; the feeder's own by default.
    json
        Print one JSON object.
    """
    from gridpool.grid.feeder import load_feeder
    from gridpool.grid.optimal import optimal_power_flow

    f = load_feeder(feeder)
    with progress("optimal power flow", 1) as advance:
        flow = optimal_power_flow(
            f,
            objective=objective,
            formulation=formulation,
            source_price=source_price,
            generation_price=generation_price,
            dg_share=dg_share,
            components=components,
            lower_pu=lower_pu,
            upper_pu=upper_pu,
        )
        advance()
    result: dict[str, Any] = msgspec.to_builtins(flow)
    shown = {k: v for k, v in result.items() if k not in {"set_points", "voltages"}}
    shown |= {k: v for k, v in result["set_points"].items() if k != "served_fraction"}
    width = max(map(len, shown))
    emit(result, json=json, text="\n".join(f"{k.replace('_', ' '):<{width}}  {v}" for k, v in shown.items()))


def parse_nodes(text: str, nodes: tuple[str, ...]) -> list[str]:
    """Read ``all``, ``none`` or a comma-separated list of nodes."""
    word = text.strip().lower()
    if word == "all":
        return list(nodes)
    if word in {"none", ""}:
        return []
    return [part.strip().lower() for part in text.split(",") if part.strip()]
