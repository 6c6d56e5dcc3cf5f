"""``gridpool lab``: latency and security of blockchain access, exact and simulated."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from gridpool.cli.output import emit, progress, table
from gridpool.errors import RefusedInput

if TYPE_CHECKING:
    from gridpool.lab.access import Access
    from gridpool.lab.attack import Attack
    from gridpool.lab.simulation import Simulated

__all__ = ["app"]

app = App(name="lab", help="Latency, security and consensus models.")
simulate = App(name="simulate", help="Monte Carlo of latency and attacks, with intervals.")
app.command(simulate)

ACCESS_OPTIONS: dict[str, type] = {
    "arrival": float,
    "block_rate": float,
    "service_rate": float,
    "links": int,
    "block_size": int,
    "confirmations": int,
    "reject_rate": float,
    "reject_size": int,
}
ATTACK_OPTIONS: dict[str, type] = {"beta": float, "confirmations": int, "give_up": int, "pre_mined": int}
PLAN_OPTIONS: dict[str, type] = {
    "target_latency": float,
    "max_risk": float,
    **{name: kind for name, kind in ACCESS_OPTIONS.items() if name != "confirmations"},
    "beta": float,
    "give_up": int,
}


@app.command
def latency(
    *,
    arrival: float | None = None,
    block_rate: float | None = None,
    service_rate: float | None = None,
    links: int | None = None,
    block_size: float | None = None,
    confirmations: int | None = None,
    reject_rate: float = 0.0,
    reject_size: float | None = None,
    template: Literal["refresh", "frozen"] = "refresh",
    seed: int = 1,
    events: int = 20_000_000,
    replicas: int = 32,
    sweep: str | None = None,
    plot: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Compute the latency of blockchain access: as printed, exact, and with bounds that hold.

    Example: ``gridpool lab latency --arrival 0.8 --block-rate 1 --service-rate 0.2 --links 5 --block-size 5
    --confirmations 2``

    Parameters
    ----------
    arrival
        Requests per unit of time, whichever unit all rates use.
    block_rate
        Blocks per unit of time.
    service_rate
        Services per unit of time of one link.
    links
        Number of links.
    block_size
        Requests that fit in a block, or inf.
    confirmations
        Blocks that must hold or follow a request before it is served.
    reject_rate
        Rejection epochs per unit of time.
    reject_size
        Oldest pending requests dropped by one rejection epoch, or inf.
    template
        Whether the block in progress still takes new requests (refresh) or not (frozen).
    seed
        Seed where the wait for a link is simulated.
    events
        Events of that simulation, in all.
    replicas
        Independent replicas of that simulation.
    sweep
        Vary one option, such as arrival=0.1:0.95:40; the result then has rows.
    plot
        Image file (png, svg, pdf) for the curves of a sweep.
    json
        Print one JSON object.
    """
    import msgspec

    from gridpool.lab.latency import latency_report

    given = {
        "arrival": arrival, "block_rate": block_rate, "service_rate": service_rate, "links": links,
        "block_size": block_size, "confirmations": confirmations, "reject_rate": reject_rate,
        "reject_size": reject_size,
    }  # fmt: skip
    name, values = _points(sweep, plot, ACCESS_OPTIONS)
    networks = [_access(given, name, value, template) for value in values]
    _simulation_size(events, replicas)
    rows = []
    with progress("Latency", len(networks)) as advance:
        for network in networks:
            report = latency_report(network, seed=seed, events=events, replicas=replicas)
            rows.append(msgspec.to_builtins(report))
            advance()
    stated = {"parameters": networks[0].as_dict(), "seed": seed}
    if name is None:
        emit({**rows[0], **stated}, json=json, text=_latency_text(rows[0]))
        return
    if plot is not None:
        drawn = {label: pick for label, pick in _LATENCY_COLUMNS.items() if label != "rejected share"}
        curves = {label: [pick(row) for row in rows] for label, pick in drawn.items()}
        _draw(plot, name, values, curves, "latency, units of time")
    _emit_rows(name, values, rows, stated, json=json, columns=_LATENCY_COLUMNS)


@app.command
def attack(
    *,
    beta: float | None = None,
    confirmations: int | None = None,
    give_up: float = math.inf,
    abort: Literal["exceeds", "reaches"] = "exceeds",
    success: Literal["ahead", "tie"] = "ahead",
    pre_mined: int = 0,
    first_confirmation: Literal["attacked", "next"] = "attacked",
    share: Annotated[bool, Parameter(negative="")] = False,
    sweep: str | None = None,
    plot: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Compute how likely an alternative-history attack succeeds, and the blocks of its race.

    Example: ``gridpool lab attack --beta 0.5 --confirmations 6 --give-up 10``

    Parameters
    ----------
    beta
        Attacker's block rate over the honest one (with --share: attacker's share of all blocks).
    confirmations
        Confirmations before the race starts.
    give_up
        Deficit in blocks at which the attacker gives up, or inf.
    abort
        Give up when the deficit exceeds or already reaches that number.
    success
        Succeed one block ahead, or at a tie.
    pre_mined
        Blocks that the attacker holds at the start.
    first_confirmation
        Whether the attacked block is its own first confirmation, or the next one is.
    share
        Read --beta as the attacker's share of all blocks.
    sweep
        Vary one option, such as beta=0.05:1.5:30; the result then has rows.
    plot
        Image file (png, svg, pdf) for the curves of a sweep.
    json
        Print one JSON object.
    """
    from gridpool.lab.attack import attack_success, published_success, race_blocks

    given = {"beta": beta, "confirmations": confirmations, "give_up": give_up, "pre_mined": pre_mined}
    name, values = _points(sweep, plot, ATTACK_OPTIONS)
    attacks = [_attack(given, name, value, abort, success, first_confirmation, share) for value in values]
    rows = [
        {"published": published_success(one), "exact": attack_success(one), "race_blocks": race_blocks(one)}
        for one in attacks
    ]
    stated = {"parameters": _attack_dict(attacks[0])}
    if name is None:
        emit({**rows[0], **stated}, json=json, text=_lines(rows[0]))
        return
    columns = {key: _picker(key) for key in rows[0]}
    if plot is not None:
        curves = {key: [row[key] for row in rows] for key in ("published", "exact")}
        _draw(plot, name, values, curves, "probability of success", log=True)
    _emit_rows(name, values, rows, stated, json=json, columns=columns)


@simulate.command(name="latency")
def simulate_latency(
    *,
    arrival: float | None = None,
    block_rate: float | None = None,
    service_rate: float | None = None,
    links: int | None = None,
    block_size: float | None = None,
    confirmations: int | None = None,
    reject_rate: float = 0.0,
    reject_size: float | None = None,
    template: Literal["refresh", "frozen"] = "refresh",
    engine: Literal["recursion", "lanes"] = "recursion",
    events: int = 20_000_000,
    replicas: int = 32,
    seed: int = 1,
    sweep: str | None = None,
    plot: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Simulate the latency of blockchain access, without the service itself.

    Example: ``gridpool lab simulate latency --arrival 0.8 --block-rate 1 --service-rate 0.2 --links 5 --block-size 5
    --confirmations 3 --engine lanes``

    Parameters
    ----------
    arrival
        Requests per unit of time, whichever unit all rates use.
    block_rate
        Blocks per unit of time.
    service_rate
        Services per unit of time of one link.
    links
        Number of links.
    block_size
        Requests that fit in a block, or inf.
    confirmations
        Blocks that must hold or follow a request before it is served.
    reject_rate
        Rejection epochs per unit of time.
    reject_size
        Oldest pending requests dropped by one rejection epoch, or inf.
    template
        Whether the block in progress still takes new requests (refresh) or not (frozen).
    engine
        Single requests with percentiles (recursion), or many chains in vector lanes, means only (lanes).
    events
        Events over all replicas, for each point of a sweep.
    replicas
        Independent replicas; 20 or more for honest intervals.
    seed
        Seed of the random numbers.
    sweep
        Vary one option, such as arrival=0.1:0.95:40; the result then has rows.
    plot
        Image file (png, svg, pdf) for the curves of a sweep.
    json
        Print one JSON object.
    """
    from gridpool.lab.simulation import simulate_latency_curve

    given = {
        "arrival": arrival, "block_rate": block_rate, "service_rate": service_rate, "links": links,
        "block_size": block_size, "confirmations": confirmations, "reject_rate": reject_rate,
        "reject_size": reject_size,
    }  # fmt: skip
    name, values = _points(sweep, plot, ACCESS_OPTIONS)
    networks = [_access(given, name, value, template) for value in values]
    with progress("Simulation", 1) as advance:
        found = simulate_latency_curve(networks, engine=engine, events=events, replicas=replicas, seed=seed)
        advance()
    _emit_simulated(
        name, values, found, {"parameters": networks[0].as_dict()}, plot, "latency, units of time", json=json
    )


@simulate.command(name="attack")
def simulate_attack(
    *,
    beta: float | None = None,
    confirmations: int | None = None,
    give_up: float = math.inf,
    abort: Literal["exceeds", "reaches"] = "exceeds",
    success: Literal["ahead", "tie"] = "ahead",
    pre_mined: int = 0,
    first_confirmation: Literal["attacked", "next"] = "attacked",
    share: Annotated[bool, Parameter(negative="")] = False,
    engine: Literal["recursion", "lanes"] = "recursion",
    events: int = 1_000_000,
    replicas: int = 32,
    seed: int = 1,
    sweep: str | None = None,
    plot: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Play alternative-history attacks block by block.

    Example: ``gridpool lab simulate attack --beta 0.5 --confirmations 6 --give-up 10 --engine lanes``

    Parameters
    ----------
    beta
        Attacker's block rate over the honest one (with --share: attacker's share of all blocks).
    confirmations
        Confirmations before the race starts.
    give_up
        Deficit in blocks at which the attacker gives up, or inf.
    abort
        Give up when the deficit exceeds or already reaches that number.
    success
        Succeed one block ahead, or at a tie.
    pre_mined
        Blocks that the attacker holds at the start.
    first_confirmation
        Whether the attacked block is its own first confirmation, or the next one is.
    share
        Read --beta as the attacker's share of all blocks.
    engine
        One race at a time (recursion), or one in every vector lane (lanes).
    events
        Attacks over all replicas, for each point of a sweep.
    replicas
        Independent replicas.
    seed
        Seed of the random numbers.
    sweep
        Vary one option, such as beta=0.05:1.5:30; the result then has rows.
    plot
        Image file (png, svg, pdf) for the curves of a sweep.
    json
        Print one JSON object.
    """
    from gridpool.lab.simulation import simulate_attack

    given = {"beta": beta, "confirmations": confirmations, "give_up": give_up, "pre_mined": pre_mined}
    name, values = _points(sweep, plot, ATTACK_OPTIONS)
    attacks = [_attack(given, name, value, abort, success, first_confirmation, share) for value in values]
    found = []
    with progress("Races", len(attacks)) as advance:
        for one in attacks:
            found.append(simulate_attack(one, engine=engine, events=events, replicas=replicas, seed=seed))
            advance()
    _emit_simulated(
        name, values, found, {"parameters": _attack_dict(attacks[0])}, plot, "probability of success", json=json
    )


@app.command
def plan(
    *,
    target_latency: float | None = None,
    max_risk: float | None = None,
    statistic: Literal["mean", "p50", "p90", "p99"] = "mean",
    beta: float | None = None,
    give_up: float = math.inf,
    abort: Literal["exceeds", "reaches"] = "exceeds",
    success: Literal["ahead", "tie"] = "ahead",
    pre_mined: int = 0,
    first_confirmation: Literal["attacked", "next"] = "attacked",
    share: Annotated[bool, Parameter(negative="")] = False,
    arrival: float | None = None,
    block_rate: float | None = None,
    service_rate: float | None = None,
    links: int | None = None,
    block_size: float | None = None,
    reject_rate: float = 0.0,
    reject_size: float | None = None,
    template: Literal["refresh", "frozen"] = "refresh",
    seed: int = 1,
    sweep: str | None = None,
    plot: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Choose the fewest confirmations, then the smallest block (and slowest chain), that meet latency and risk.

    Example: ``gridpool lab plan --target-latency 8 --statistic mean --max-risk 0.01 --beta 0.1 --arrival 0.8
    --block-rate 1 --service-rate 0.2 --links 5``

    Parameters
    ----------
    target_latency
        Latency not to be exceeded, in the unit of time of the rates.
    max_risk
        Probability of a successful attack not to be exceeded.
    statistic
        Mean latency, or a percentile of inclusion plus confirmation before service.
    beta
        Attacker's block rate over the honest one (with --share: attacker's share of all blocks).
    give_up
        Deficit in blocks at which the attacker gives up, or inf.
    abort
        Give up when the deficit exceeds or already reaches that number.
    success
        Succeed one block ahead, or at a tie.
    pre_mined
        Blocks that the attacker holds at the start.
    first_confirmation
        Whether the attacked block is its own first confirmation, or the next one is.
    share
        Read --beta as the attacker's share of all blocks.
    arrival
        Requests per unit of time.
    block_rate
        Blocks per unit of time; left out, the smallest is chosen.
    service_rate
        Services per unit of time of one link.
    links
        Number of links.
    block_size
        Requests that fit in a block, or inf; left out, the smallest is chosen.
    reject_rate
        Rejection epochs per unit of time.
    reject_size
        Oldest pending requests dropped by one rejection epoch, or inf.
    template
        Whether the block in progress still takes new requests (refresh) or not (frozen).
    seed
        Seed where the wait for a link is simulated.
    sweep
        Vary one option, such as target-latency=4:20:9; the result then has rows.
    plot
        Image file (png, svg, pdf) for the curves of a sweep.
    json
        Print one JSON object.
    """
    import msgspec

    from gridpool.lab.planning import plan_access

    given = {
        "target_latency": target_latency, "max_risk": max_risk, "arrival": arrival, "block_rate": block_rate,
        "service_rate": service_rate, "links": links, "block_size": block_size, "reject_rate": reject_rate,
        "reject_size": reject_size, "beta": beta, "give_up": give_up, "pre_mined": pre_mined, "confirmations": 1,
    }  # fmt: skip
    name, values = _points(sweep, plot, PLAN_OPTIONS)
    rows = []
    with progress("Plans", len(values)) as advance:
        for value in values:
            chosen = {**given, name: value} if name is not None else given
            rate, size = chosen["block_rate"], chosen["block_size"]
            filled = {
                **chosen,
                "block_rate": 1.0 if rate is None else rate,
                "block_size": 1.0 if size is None else size,
            }
            found = plan_access(
                access=_access(filled, None, 0.0, template),
                attack=_attack(chosen, None, 0.0, abort, success, first_confirmation, share),
                target_latency=_needed(chosen, "target_latency"),
                statistic=statistic,
                max_risk=_needed(chosen, "max_risk"),
                free_block_size=size is None,
                free_block_rate=rate is None,
                seed=seed,
            )
            rows.append(msgspec.to_builtins(found))
            advance()
    stated = {"statistic": statistic if statistic == "mean" else f"{statistic} before service", "seed": seed}
    if name is None:
        emit({**rows[0], **stated}, json=json)
        return
    if plot is not None:
        curves = {key: [row[key] for row in rows] for key in ("latency", "confirmations")}
        _draw(plot, name, values, curves, "latency (units of time), confirmations")
    _emit_rows(name, values, rows, stated, json=json, columns={key: _picker(key) for key in rows[0]})


Pick = Callable[[dict[str, Any]], Any]

_LATENCY_COLUMNS: dict[str, Pick] = {
    "exact": lambda row: row["exact"]["latency"],
    "upper bound": lambda row: row["bounds"]["upper"],
    "lower bound": lambda row: row["bounds"]["lower"],
    "printed (5), (6)": lambda row: row["published"]["latency"],
    "printed (7)": lambda row: row["published"]["lower"],
    "rejected share": lambda row: row["exact"]["rejected_share"],
}


def _picker(key: str) -> Pick:
    return lambda row: row[key]


def _points(sweep: str | None, plot: Path | None, names: dict[str, type]) -> tuple[str | None, Sequence[float]]:
    """Return the swept option and its values, or None and one value that is not used."""
    from gridpool.lab.chart import check_image
    from gridpool.lab.sweep import Sweep

    if plot is not None:
        if sweep is None:
            raise RefusedInput("--plot draws the curves of a sweep; add --sweep name=lo:hi:n")
        check_image(plot)
    if sweep is None:
        return None, (0.0,)
    found = Sweep.parse(sweep, names=names)
    return found.name, found.values


def _needed(given: dict[str, Any], name: str) -> Any:
    if given[name] is None:
        raise RefusedInput(f"--{name.replace('_', '-')} is missing; give it or sweep it")
    return given[name]


def _access(given: dict[str, Any], name: str | None, value: float, template: Literal["refresh", "frozen"]) -> "Access":
    from gridpool.lab.access import Access

    chosen = {**given, name: value} if name is not None else given
    if chosen["reject_rate"] > 0 and chosen["reject_size"] is None:
        raise RefusedInput("--reject-rate needs --reject-size, a number of requests or inf")
    return Access(
        arrival=_needed(chosen, "arrival"),
        block_rate=_needed(chosen, "block_rate"),
        service_rate=_needed(chosen, "service_rate"),
        links=int(_needed(chosen, "links")),
        block_size=_needed(chosen, "block_size"),
        confirmations=int(_needed(chosen, "confirmations")),
        reject_rate=chosen["reject_rate"],
        reject_size=math.inf if chosen["reject_size"] is None else chosen["reject_size"],
        template=template,
    )


def _attack(
    given: dict[str, Any],
    name: str | None,
    value: float,
    abort: Literal["exceeds", "reaches"],
    success: Literal["ahead", "tie"],
    first_confirmation: Literal["attacked", "next"],
    share: bool,
) -> "Attack":
    from gridpool.lab.attack import Attack, ratio_from_share

    chosen = {**given, name: value} if name is not None else given
    beta = _needed(chosen, "beta")
    return Attack(
        beta=ratio_from_share(beta) if share else beta,
        confirmations=int(_needed(chosen, "confirmations")),
        give_up=chosen["give_up"],
        abort=abort,
        success=success,
        pre_mined=int(chosen["pre_mined"]),
        attacked_block_counts=first_confirmation == "attacked",
    )


def _attack_dict(attack: "Attack") -> dict[str, Any]:
    return {
        "beta": attack.beta,
        "confirmations": attack.confirmations,
        "give_up": "inf" if attack.give_up == math.inf else int(attack.give_up),
        "abort": attack.abort,
        "success": attack.success,
        "pre_mined": attack.pre_mined,
        "first_confirmation": "attacked" if attack.attacked_block_counts else "next",
    }


def _simulation_size(events: int, replicas: int) -> None:
    from gridpool.lab.simulation import check_size

    check_size(events, replicas)


def _emit_rows(
    name: str,
    values: Sequence[float],
    rows: list[dict[str, Any]],
    stated: dict[str, Any],
    *,
    json: bool,
    columns: dict[str, Pick],
) -> None:
    text = table(
        (name, *columns),
        [(value, *(pick(row) for pick in columns.values())) for value, row in zip(values, rows, strict=True)],
    )
    named = [{name: value, **row} for value, row in zip(values, rows, strict=True)]
    emit({"rows": named, "sweep": name, **stated}, json=json, text=text)


def _emit_simulated(
    name: str | None,
    values: Sequence[float],
    found: "list[Simulated]",
    stated: dict[str, Any],
    plot: Path | None,
    y_label: str,
    *,
    json: bool,
) -> None:
    import msgspec

    rows: list[dict[str, Any]] = [msgspec.to_builtins(one) for one in found]
    if name is None:
        emit({**rows[0], **stated}, json=json)
        return
    columns = {key: _picker(key) for key in ("mean", "ci95", "p50", "p90", "p99", "events", "events_per_s")}
    if plot is not None:
        bands = {"mean": [one.ci95 for one in found]}
        _draw(plot, name, values, {"mean": [one.mean for one in found]}, y_label, bands=bands)
    _emit_rows(name, values, rows, stated, json=json, columns=columns)


def _draw(
    plot: Path,
    name: str,
    values: Sequence[float],
    curves: dict[str, list[float | None]] | dict[str, list[float]],
    y_label: str,
    *,
    log: bool = False,
    bands: dict[str, list[tuple[float, float]]] | None = None,
) -> None:
    from gridpool.lab.chart import draw_curves

    draw_curves(plot, x=values, curves=curves, x_label=name.replace("_", "-"), y_label=y_label, log=log, bands=bands)


def _lines(row: dict[str, Any]) -> str:
    return "\n".join(f"{key:<12} {'-' if value is None else format(value, '.6g')}" for key, value in row.items())


def _latency_text(row: dict[str, Any]) -> str:
    printed, exact, bounds = row["published"], row["exact"], row["bounds"]
    names = ("inclusion", "confirmation", "service_wait", "latency", "sojourn")
    lines = [(name, printed.get(name), exact[name]) for name in names]
    lines += [("upper bound", printed["upper"], bounds["upper"]), ("lower bound", printed["lower"], bounds["lower"])]
    percentiles = ", ".join(f"{key} {value:.6g}" for key, value in exact["pre_service_percentiles"].items())
    found = f"by {exact['method']}"
    if exact["interval"]:
        found += f", 95 % interval of the latency {exact['interval'][0]:.6g} to {exact['interval'][1]:.6g}"
    notes = [
        f"wait for a link {found}",
        f"before service: {percentiles}",
        f"rejected share {exact['rejected_share']:.6g}",
    ]
    return (
        table(("", "printed", "exact"), lines) + "\n\n" + "\n".join(notes + [f"violated: {v}" for v in row["violated"]])
    )
