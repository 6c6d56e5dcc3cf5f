"""``gridpool plan``: which sensors and actuators get a slice, and what that is worth."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from gridpool.cli.output import emit, note, progress, table

if TYPE_CHECKING:
    from gridpool.grid import Feeder
    from gridpool.planner import Plan
    from gridpool.radio import Instance, Mvno, Preemption

__all__ = ["plan"]

MethodName = Literal[
    "greedy", "greedy_reference", "exact", "milp", "bc", "top_k", "random", "value_density", "lagrangian"
]
LayoutName = Literal["onecell", "streets"]
VariantName = Literal["package", "literal", "conditional", "coverage"]
BetaName = Literal["bc_power", "bc_endpoints_power", "degree", "bc", "power", "power_degree"]


def plan(
    *,
    feeder: str,
    resource_blocks: int | None = None,
    method: MethodName = "greedy",
    layout: LayoutName | None = None,
    beta: BetaName | None = None,
    alpha_ratio: float | None = None,
    variant: VariantName = "package",
    packet_bits: int | None = None,
    sigma_db: float | None = None,
    interference: Literal["none", "fixed", "fixed_point"] | None = None,
    neighbour_load: float | None = None,
    fading: Literal["none", "rayleigh"] | None = None,
    slots: int | None = None,
    mvno: Annotated[list[str] | None, Parameter(negative="")] = None,
    work_conserving: Annotated[bool, Parameter(negative="")] = False,
    numerology: int | None = None,
    guard_blocks: int | None = None,
    urllc_activity: float | None = None,
    overflow: float | None = None,
    free_zones: Annotated[bool, Parameter(negative="")] = False,
    instance: Path | None = None,
    write_instance: Path | None = None,
    prices: Path | None = None,
    blind_error: float = 0.5,
    dg_share: float = 0.2,
    compare: Annotated[bool, Parameter(negative="")] = False,
    write: Path | None = None,
    report: Path | None = None,
    seed: int = 1,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Choose which sensors and actuators get a slice, and compute the load that can be served then.

    Example: ``gridpool plan --feeder ieee13 --resource-blocks 20``

    Parameters
    ----------
    feeder
        ieee13, ieee34, ieee37, ieee123, or an OpenDSS master file.
    resource_blocks
        Resource blocks offered a cell, 1 to 106 (needed unless --instance brings them).
    method
        How blocks are allocated; ``exact`` is optimal, ``greedy`` the published heuristic.
    layout
        ``onecell`` (default) or ``streets``: city blocks under a lattice of cells.
    beta
        Node weights, default bc_endpoints_power.
    alpha_ratio
        Priority of URLLC over mMTC, default 3.
    variant
        What a grant is, and what is maximised.
    packet_bits
        Length of a URLLC packet, default 2048.
    sigma_db
        Standard deviation of shadowing, default 8.
    interference
        From other cells: none (default), a fixed load, or the fixed point of all cells' loads.
    neighbour_load
        Share of blocks that other cells use under --interference fixed, default 1.
    fading
        Channels that differ between blocks: none (default) or rayleigh.
    slots
        Slots to schedule; URLLC holds its blocks in each, mMTC in one. Default 1.
    mvno
        NAME=SHARE of an operator that shares the cells; repeat for each. Nodes are dealt to them in turn.
    work_conserving
        Hand blocks that an MVNO's share leaves idle to the others.
    numerology
        Exponent mu of the URLLC bandwidth part's subcarrier spacing, 15 x 2^mu kHz. Default 0.
    guard_blocks
        Resource blocks left free between parts of unequal spacing. Default 0.
    urllc_activity
        Let URLLC take blocks from mMTC in mini-slots only while active: its probability of being so in a slot.
    overflow
        With --urllc-activity: most probability that active slices need more blocks than there are, default 1e-5.
    free_zones
        Choose the zone sizes too.
    instance
        File with the radio problem (measured links, for instance) instead of the model.
    write_instance
        Write the radio problem to this file.
    prices
        TOML file of prices for the plan's worth; ``example`` is the one that comes with gridpool.
    blind_error
        Error of an unobserved node's demand, as a share of it.
    dg_share
        Size of the feeder's generators together, as a share of its load.
    compare
        Table all methods on the same problem.
    write
        Write the JSON result to this file.
    report
        Write an HTML map of the plan to this file.
    seed
        Of places, shadowing, fading and the random method.
    json
        Print one JSON object.
    """
    from gridpool.grid import load_feeder
    from gridpool.planner import compare as compare_methods
    from gridpool.planner import plan as make_plan
    from gridpool.planner.files import write_json, write_text
    from gridpool.radio import write_instance as save_instance

    grid = load_feeder(feeder)
    price_list = None
    if prices is not None:
        from gridpool.planner.worth import read_prices

        price_list = read_prices(prices)
    problem = _problem(
        grid,
        instance,
        resource_blocks=resource_blocks,
        layout=layout,
        beta=beta,
        alpha_ratio=alpha_ratio,
        packet_bits=packet_bits,
        sigma_db=sigma_db,
        interference=interference,
        neighbour_load=neighbour_load,
        fading=fading,
        slots=slots,
        mvno=mvno,
        work_conserving=work_conserving,
        numerology=numerology,
        guard_blocks=guard_blocks,
        urllc_activity=urllc_activity,
        overflow=overflow,
        dg_share=dg_share,
        seed=seed,
    )
    if free_zones:
        from gridpool.radio.zones import best_split

        problem = best_split(problem)
    if write_instance is not None:
        save_instance(problem, write_instance)
        note(f"radio problem written to {write_instance}")
    chosen = make_plan(
        grid, method=method, variant=variant, instance=problem, dg_share=dg_share, blind_error=blind_error, seed=seed
    )
    result = chosen.as_dict()
    if price_list is not None:
        from gridpool.planner.worth import plan_worth

        worth = plan_worth(grid, chosen, price_list, dg_share=dg_share, blind_error=blind_error)
        result["worth"] = worth.as_dict()
    plans: list[Plan] = []
    if compare:
        methods = _comparable(problem, variant)
        with progress("methods", len(methods)) as advance:
            for one in compare_methods(
                grid, problem, methods=methods, variant=variant, seed=seed, dg_share=dg_share, blind_error=blind_error
            ):
                plans.append(one)
                advance()
        result["methods"] = [_method_row(one) for one in plans]
    if report is not None:
        from gridpool.planner.report import plan_page

        write_text(report, plan_page(grid, chosen, plans, result.get("worth")))
        result["report"] = str(report)
    if write is not None:
        write_json(write, result)
    emit(result, json=json, text=_text(result))


def _problem(
    grid: "Feeder",
    path: Path | None,
    *,
    resource_blocks: int | None,
    layout: LayoutName | None,
    beta: BetaName | None,
    alpha_ratio: float | None,
    packet_bits: int | None,
    sigma_db: float | None,
    interference: Literal["none", "fixed", "fixed_point"] | None,
    neighbour_load: float | None,
    fading: Literal["none", "rayleigh"] | None,
    slots: int | None,
    mvno: list[str] | None,
    work_conserving: bool,
    numerology: int | None,
    guard_blocks: int | None,
    urllc_activity: float | None,
    overflow: float | None,
    dg_share: float,
    seed: int,
) -> "Instance":
    from gridpool.errors import RefusedInput
    from gridpool.planner import adopt_instance, feeder_instance
    from gridpool.radio import Numerology, RadioProfile, Requirement, read_instance

    if seed < 0:
        raise RefusedInput(f"seed {seed} is negative; give 0 or more")
    if path is not None:
        modelled = {
            "--layout": layout,
            "--sigma-db": sigma_db,
            "--interference": interference,
            "--neighbour-load": neighbour_load,
            "--fading": fading,
            "--slots": slots,
            "--mvno": mvno,
            "--work-conserving": work_conserving or None,
            "--numerology": numerology,
            "--guard-blocks": guard_blocks,
            "--urllc-activity": urllc_activity,
            "--overflow": overflow,
        }
        clash = [option for option, value in modelled.items() if value is not None]
        if clash:
            raise RefusedInput(
                f"{', '.join(clash)}: {path} already fixes this; change the file or leave the option out"
            )
        return adopt_instance(
            read_instance(path),
            grid,
            resource_blocks=resource_blocks,
            beta=beta,
            alpha_ratio=alpha_ratio,
            packet_bits=packet_bits,
            dg_share=dg_share,
        )
    if resource_blocks is None:
        raise RefusedInput("the number of resource blocks is missing; add --resource-blocks N, from 1 to 106 a cell")
    default = Requirement()
    return feeder_instance(
        grid,
        resource_blocks=resource_blocks,
        layout=layout or "onecell",
        beta=beta or "bc_endpoints_power",
        alpha_ratio=3.0 if alpha_ratio is None else alpha_ratio,
        requirement=Requirement(packet_bits=default.packet_bits if packet_bits is None else packet_bits),
        profile=RadioProfile() if sigma_db is None else RadioProfile(sigma_db=sigma_db),
        mvnos=_mvnos(mvno),
        slots=1 if slots is None else slots,
        fading=fading or "none",
        numerology=Numerology(mu=numerology or 0, guard_blocks=guard_blocks or 0),
        preemption=_preemption(urllc_activity, overflow),
        interference=interference or "none",
        neighbour_load=1.0 if neighbour_load is None else neighbour_load,
        work_conserving=work_conserving,
        dg_share=dg_share,
        seed=seed,
    )


def _comparable(problem: "Instance", variant: VariantName) -> list[MethodName]:
    """Return the methods that cover a variant of a problem."""
    from gridpool.radio import METHODS

    if problem.preemption is not None:
        return ["greedy", "value_density", "bc", "top_k", "random"]
    return [name for name in METHODS if name != "lagrangian" or variant in ("package", "coverage")]


def _preemption(activity: float | None, overflow: float | None) -> "Preemption | None":
    from gridpool.errors import RefusedInput
    from gridpool.radio import Preemption

    if activity is None:
        if overflow is not None:
            raise RefusedInput("--overflow goes with --urllc-activity; give both")
        return None
    return Preemption(activity=activity) if overflow is None else Preemption(activity=activity, overflow=overflow)


def _mvnos(given: list[str] | None) -> "list[Mvno]":
    from gridpool.errors import RefusedInput
    from gridpool.radio import Mvno

    if not given:
        return [Mvno(name="utility", share=1.0)]
    found = []
    for entry in given:
        name, sign, share = entry.partition("=")
        try:
            found.append(Mvno(name=name, share=float(share)))
        except ValueError:
            sign = ""
        if not sign or not name:
            raise RefusedInput(
                f"--mvno {entry!r} is not NAME=SHARE; write for instance --mvno city=0.6 --mvno rural=0.4"
            )
    return found


def _method_row(one: "Plan") -> dict[str, Any]:
    done = one.allocation
    return {
        "method": done.method,
        "value": done.value,
        "gap": done.gap,
        "urllc_granted": done.urllc_granted,
        "mmtc_granted": done.mmtc_granted,
        "resource_blocks_used": done.resource_blocks_used,
        "served_power_w": one.served_power_w,
        "served_share": one.served_share,
        "score": one.score,
    }


def _text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['feeder']}: {result['urllc_granted']} of {result['urllc_requested']} URLLC and "
        f"{result['mmtc_granted']} of {result['mmtc_requested']} mMTC slices granted by {result['method']} "
        f"on {result['resource_blocks_used']} resource blocks of {result['cells']} x {result['resource_blocks']}",
        f"value {result['value']:.6g} bit/s/Hz, at most {result['bound']:.6g} (gap {result['gap']:.2%})",
        f"served {result['served_power_w'] / 1e3:.1f} kW, {result['served_share']:.1%} of demand, "
        f"{result['score']:.1%} of what full connectivity serves ({result['certified']})",
        "",
        table(
            ("node", "slice", "cell", "zone", "slot", "blocks", "Mbit/s"),
            [
                (
                    row["node"],
                    row["slice"],
                    row["cell"],
                    row["zone"],
                    row["slot"],
                    " ".join(str(block) for block in row["resource_blocks"]),
                    f"{row['rate_bps'] / 1e6:.2f}",
                )
                for row in result["allocation"]
            ],
        ),
    ]
    if "methods" in result:
        header = ("method", "value", "gap", "urllc_granted", "mmtc_granted", "served_share", "score")
        lines += ["", table(header, [[row[key] for key in header] for row in result["methods"]])]
    if "worth" in result:
        worth = result["worth"]
        lines += [
            "",
            f"worth {worth['value_per_year']:.0f} {worth['currency']} a year for "
            f"{worth['cost_per_year']:.0f} {worth['currency']} a year",
        ]
    return "\n".join(lines)
