"""Li et al. 2018, "Consortium Blockchain for Secure Energy Trading in Industrial Internet of Things".

Figs. 5 to 9 and the security claims of section V-A, each with a verdict. A numeric claim is reproduced under stated
assumptions where the paper's figure lies in our 95 % interval; a claim about a direction where our whole interval has
that direction. What the paper leaves out is a parameter.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from gridpool.errors import RefusedInput
from gridpool.studies.li2018_charts import bands, bars, boxes, lines, write_rows
from gridpool.studies.li2018_confirmation import SCHEMES, Spacing, mean_and_interval, simulate_pairs
from gridpool.studies.li2018_grades import GRADES, GradeCounts, count_grades, published_grades
from gridpool.studies.li2018_loans import (
    Floats,
    Population,
    RandomLaw,
    RepaymentLaw,
    allot,
    draw_borrowers,
    equilibrium,
    search_rates,
)
from gridpool.studies.li2018_security import Attempt, play_attacks, security_claims
from gridpool.studies.study import Claim, Study, StudyResult, Verdict

__all__ = ["STUDY", "Params"]

STATED: Verdict = "reproduced under stated assumptions"
SPACINGS: tuple[Spacing, ...] = ("even", "poisson")


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of the study; those marked * are not in the paper."""

    seed: int = 2018
    """Seed of every random draw.*"""
    draws: int = 2_000
    """Populations drawn for Figs. 7 to 9.*"""
    chain_runs: int = 200
    """Runs of Fig. 5.*"""
    pairs: int = 50
    horizon_min: float = 240.0
    classic_min: float = 60.0
    energy_min: float = 10.0
    aggregators: int = 51
    """Size of the consortium; the paper's fixed confirmation time already includes it."""
    frequencies: tuple[int, ...] = (1, 2, 3, 4, 5)
    saturating_frequency: int = 12
    """Requests an hour at which the chains' upper limits are measured.*"""
    coins: int = 20
    coins_per_trade: int = 20
    """Coins that a trade locks until it is confirmed; the whole wallet, as section V-B says.*"""
    banks: int = 5
    borrowers: int = 20
    """Borrowers a bank."""
    satisfaction: tuple[float, float] = (20_000.0, 20_400.0)
    comfort: tuple[float, float] = (2_000.0, 2_500.0)
    months_max: float = 10.0
    penalty_ratio: float = 3.5
    cost: tuple[float, float] = (0.1, 0.2)
    heuristic_interest: float = 0.1
    """Interest a month of the two heuristic schemes."""
    repayment_law: RepaymentLaw = "uniform"
    """Law of lambda: uniform over (0, 1], or from a drawn record of ten loans.*"""
    price: float = 1.0
    """p, coins per unit of energy.*"""
    demand: float = 0.0
    """Q_min, energy.*"""
    alpha_max: float | None = None
    """Highest penalty rate.*"""
    average_amount: float | None = None
    """Coins a borrower under the average scheme; by default what its bank lends on average under ours.*"""
    random_law: RandomLaw = "up_to_average"
    """Amounts of the random scheme: uniform up to the average amount, or up to twice it.*"""
    alpha_step: float = 0.1
    """Step of Algorithm 1's search.*"""
    alpha_steps: int = 100
    """Number of its steps.*"""
    tolerance: float = 0.01
    """Distance from the closed form at which the search counts as converged.*"""
    lending_club_csv: str | None = None
    """A CSV of loans to count grades in, instead of the counts that come with gridpool.*"""


def _run(params: Params, out: Path, smoke: bool, scheduler: str | None) -> StudyResult:
    _check(params)
    if smoke:
        params = msgspec.structs.replace(params, draws=min(params.draws, 300), chain_runs=min(params.chain_runs, 20))
    grades = published_grades() if params.lending_club_csv is None else count_grades(Path(params.lending_club_csv))
    claims: list[Claim] = []
    files: list[str] = []
    for number, part in enumerate((_figure_5, _figure_6, _figure_7, _figure_8, _figure_9)):
        rng = np.random.default_rng((params.seed, number))
        found, written = part(params, grades, rng, out)
        claims += found
        files += written
    attempts = play_attacks(params.seed)
    claims += security_claims(attempts, params.seed)
    files += _attacks(attempts, out)
    return StudyResult(study="li2018", claims=claims, files=files, seed=params.seed, params=msgspec.to_builtins(params))


STUDY = Study(params=Params, run=_run)


def _figure_5(
    params: Params, grades: GradeCounts, rng: np.random.Generator, out: Path
) -> tuple[list[Claim], list[str]]:
    rows = []
    trades: dict[tuple[str, str, int], list[float]] = {}
    begun: dict[tuple[str, str, int], list[float]] = {}
    waits: dict[tuple[str, str, int], list[float]] = {}
    in_flight = max(params.coins // params.coins_per_trade, 1)
    times = (params.classic_min, params.energy_min, params.energy_min)
    slots = (in_flight, in_flight, None)
    frequencies = sorted({*params.frequencies, params.saturating_frequency})
    for spacing in SPACINGS:
        for scheme, minutes, limit in zip(SCHEMES, times, slots, strict=True):
            for frequency in frequencies:
                runs = [
                    simulate_pairs(
                        # the schemes meet the same requests, so that their difference is theirs alone
                        np.random.default_rng((params.seed, SPACINGS.index(spacing), frequency, run)),
                        pairs=params.pairs,
                        horizon_min=params.horizon_min,
                        frequency=frequency,
                        confirmation_min=minutes,
                        in_flight=limit,
                        spacing=spacing,
                    )
                    for run in range(params.chain_runs)
                ]
                key = (spacing, scheme, frequency)
                trades[key] = [run.finished_per_hour for run in runs]
                begun[key] = [run.begun_per_hour for run in runs]
                waits[key] = [run.total_wait_min for run in runs]
                rows.append(
                    (
                        spacing,
                        scheme,
                        frequency,
                        *(round(x, 4) for x in mean_and_interval(waits[key])),
                        *(round(x, 4) for x in mean_and_interval([run.wait_min for run in runs])),
                        *(round(x, 4) for x in mean_and_interval(trades[key])),
                        *(round(x, 4) for x in mean_and_interval(begun[key])),
                    )
                )
    header = ["requests", "scheme", "frequency_per_hour"]
    for name in ("total_wait_min", "wait_min_per_trade", "finished_per_hour", "begun_per_hour"):
        header += [name, f"{name}_low", f"{name}_high"]
    write_rows(out / "fig5_confirmation.csv", header, rows)
    panels = []
    for spacing in SPACINGS:
        for title, y_label, data in (
            ("(a) waiting for confirmation", "minutes a pair, summed over requests", waits),
            ("(b) transaction speed", "finished trades an hour", trades),
        ):
            curves = {
                scheme: [float(np.mean(data[spacing, scheme, f])) for f in params.frequencies]
                for scheme in SCHEMES
                if data is trades or scheme != SCHEMES[2]
            }
            panels.append((f"{title}, {spacing} requests", "requests an hour", y_label, params.frequencies, curves))
    lines(out / "fig5_confirmation.png", panels)
    classic, energy, credit = SCHEMES
    claims = []
    top = max(params.frequencies)
    given = (
        f"confirmation fixed at {params.classic_min:g} and {params.energy_min:g} min, {in_flight} trade in flight, "
        "requests queue"
    )
    for spacing in SPACINGS:
        ratio = [a / b for a, b in zip(waits[spacing, classic, top], waits[spacing, energy, top], strict=True)]
        claims.append(
            _direction(
                "5a",
                f"waiting for confirmation is longer on the classic chain ({spacing} requests, {top} an hour): ratio",
                mean_and_interval(ratio),
                above=1.0,
                assumptions=given,
            )
        )
    for scheme, minutes in ((classic, params.classic_min), (energy, params.energy_min)):
        measured = mean_and_interval(trades["even", scheme, params.saturating_frequency])
        cap = in_flight * 60.0 / minutes
        claims.append(
            Claim(
                figure="5b",
                claim=f"the {scheme} has an upper limit of trades an hour",
                paper=None,
                ours=measured[0],
                interval=measured[1:],
                verdict=STATED if measured[2] <= cap + 1e-9 and cap < params.saturating_frequency else "not reproduced",
                assumptions=f"{given}; limit {cap:g}, measured at {params.saturating_frequency} requests an hour",
            )
        )
    for spacing in SPACINGS:
        for verb, data, note in (
            ("finishes", trades, "a trade on credit is finished when it starts, one on the chain when it is confirmed, "
             "so trades unconfirmed at the end of the horizon count for credit alone"),
            ("begins", begun, "counted when they start, which leaves only what the chain's limit itself delays"),
        ):  # fmt: skip
            gains = [
                100.0
                * (
                    sum(data[spacing, credit, f][run] for f in params.frequencies)
                    / sum(data[spacing, energy, f][run] for f in params.frequencies)
                    - 1.0
                )
                for run in range(params.chain_runs)
            ]
            claims.append(
                _direction(
                    "5b",
                    f"credit-based payment {verb} more trades than the energy chain ({spacing} requests), %",
                    mean_and_interval(gains),
                    above=0.0,
                    assumptions=f"{given}; {note}; all frequencies equally likely",
                )
            )
    return claims, ["fig5_confirmation.csv", "fig5_confirmation.png"]


def _figure_6(
    params: Params, grades: GradeCounts, rng: np.random.Generator, out: Path
) -> tuple[list[Claim], list[str]]:
    shares = grades.shares
    rows = [
        (grade, loans, float(f"{share:.8g}")) for grade, loans, share in zip(GRADES, grades.loans, shares, strict=True)
    ]
    write_rows(out / "fig6_grades.csv", ("grade", "loans", "share"), rows)
    bars(
        out / "fig6_grades.png",
        GRADES,
        [100 * float(share) for share in shares],
        title=f"{grades.total:,} loans by credit grade",
        x_label="credit grade",
        y_label="share of loans, %",
    )
    thousand = grades.total / 1000
    claim = Claim(
        figure="6",
        claim="890 thousand observations over 35 credit grades (thousands)",
        paper=890.0,
        ours=thousand,
        verdict="reproduced" if abs(thousand - 890.0) <= 5.0 and all(grades.loans) else "not reproduced",
        assumptions=f"{grades.source}; equal when rounded to ten thousand",
    )
    return [claim], ["fig6_grades.csv", "fig6_grades.png"]


def _figure_7(
    params: Params, grades: GradeCounts, rng: np.random.Generator, out: Path
) -> tuple[list[Claim], list[str]]:
    shape = (params.draws, params.banks, params.borrowers)
    draw = draw_borrowers(rng, shape, grades.shares, _population(params))
    _, ours = equilibrium(draw.borrowers, params.alpha_max)
    average = ours.loan.mean(axis=2, keepdims=True)
    if params.average_amount is not None:
        average = np.full_like(average, params.average_amount)
    schemes = {
        "proposed": ours,
        "AAS": allot(rng, draw, average=average, interest=params.heuristic_interest),
        "RAS": allot(rng, draw, average=average, interest=params.heuristic_interest, law=params.random_law),
    }
    picked = (np.arange(5) % params.banks, np.arange(5) // params.banks)  # borrowers are exchangeable
    bank = {name: benefits.bank.sum(axis=(1, 2)) / params.banks for name, benefits in schemes.items()}
    borrower = {name: benefits.borrower[:, *picked].mean(axis=1) for name, benefits in schemes.items()}
    write_rows(
        out / "fig7_benefits.csv",
        ("draw", *(f"bank_{name}" for name in bank), *(f"borrower_{name}" for name in borrower)),
        [
            (i, *(f"{v[i]:.6g}" for v in bank.values()), *(f"{v[i]:.6g}" for v in borrower.values()))
            for i in range(params.draws)
        ],
    )
    published = {"bank": {"AAS": 64.8, "RAS": 226.9}, "borrower": {"AAS": 24.1, "RAS": 5.7}}
    claims = []
    gains: dict[str, dict[str, Floats]] = {}
    given = (
        f"p = {params.price:g}, Q_min = {params.demand:g}, alpha_max "
        f"{'none' if params.alpha_max is None else f'{params.alpha_max:g}'}, lambda {params.repayment_law}, AAS lends "
        + ("what the bank lends on average under the proposed scheme" if params.average_amount is None
           else f"{params.average_amount:g} coins")
        + f", RAS uniform up to {'' if params.random_law == 'up_to_average' else 'twice '}that; one draw of the paper "
        "against the distribution of ours"
    )  # fmt: skip
    for who, benefit in (("bank", bank), ("borrower", borrower)):
        gains[who] = {}
        for scheme in ("AAS", "RAS"):
            usable = benefit[scheme] > 0
            gain = 100.0 * (benefit["proposed"][usable] / benefit[scheme][usable] - 1.0)
            gains[who][scheme] = gain
            if not gain.size:
                raise RefusedInput(f"under these parameters {scheme} never earns a {who} anything; nothing to compare")
            low, middle, high = (float(x) for x in np.percentile(gain, (2.5, 50.0, 97.5)))
            paper = published[who][scheme]
            below = 100.0 * float(np.mean(gain < paper))
            claims.append(
                Claim(
                    figure="7a" if who == "bank" else "7b",
                    claim=f"average benefit of {'five banks' if who == 'bank' else 'five random borrowers'} above "
                    f"{scheme}, %",
                    paper=paper,
                    ours=middle,
                    interval=(low, high),
                    verdict=STATED if low <= paper <= high else "not reproduced",
                    assumptions=f"{given}; {below:.1f} % of our draws lie below the paper's figure",
                )
            )
    boxes(
        out / "fig7_benefits.png",
        [
            (f"({panel}) {title}", "proposed scheme above it, %", gains[who], published[who])
            for panel, title, who in (("a", "credit banks", "bank"), ("b", "borrowers", "borrower"))
        ],
    )
    return claims, ["fig7_benefits.csv", "fig7_benefits.png", _sensitivity(params, grades, rng, out)]


def _sensitivity(params: Params, grades: GradeCounts, rng: np.random.Generator, out: Path) -> str:
    """Repeat Fig. 7 over what the paper leaves out, so that a reader sees how much rests on it."""
    rows = []
    for price in (0.5, 1.0, 2.0):
        for demand in (0.0, params.comfort[0] / 2):
            for alpha_max in (None, 5.0, 2.0):
                for law in ("uniform", "record"):
                    chosen = msgspec.structs.replace(
                        params, price=price, demand=demand, alpha_max=alpha_max, repayment_law=law
                    )
                    shape = (min(params.draws, 300), params.banks, params.borrowers)
                    draw = draw_borrowers(rng, shape, grades.shares, _population(chosen))
                    _, ours = equilibrium(draw.borrowers, alpha_max)
                    average = ours.loan.mean(axis=2, keepdims=True)
                    row: list[object] = [price, demand, "" if alpha_max is None else alpha_max, law]
                    for random_law in (None, "up_to_average", "same_mean"):
                        other = allot(
                            rng,
                            draw,
                            average=average,
                            interest=params.heuristic_interest,
                            law=random_law,
                        )
                        for mine, theirs in ((ours.bank, other.bank), (ours.borrower, other.borrower)):
                            total, least = mine.sum(axis=(1, 2)), theirs.sum(axis=(1, 2))
                            ratio = total[least > 0] / least[least > 0]
                            row.append(f"{100 * (float(np.median(ratio)) - 1):.4g}" if ratio.size else "")
                    rows.append(row)
    header = ["price", "demand", "alpha_max", "repayment_law"]
    for scheme in ("AAS", "RAS_up_to_average", "RAS_same_mean"):
        header += [f"bank_above_{scheme}_percent", f"borrower_above_{scheme}_percent"]
    write_rows(out / "fig7_sensitivity.csv", header, rows)
    return "fig7_sensitivity.csv"


def _figure_8(
    params: Params, grades: GradeCounts, rng: np.random.Generator, out: Path
) -> tuple[list[Claim], list[str]]:
    needed: list[int] = []
    shown = None
    for _ in range(min(params.draws, 400)):
        draw = draw_borrowers(rng, (1, 1, params.borrowers), grades.shares, _population(params))
        search = search_rates(draw.borrowers, step=params.alpha_step, steps=params.alpha_steps)
        shown = shown or search
        near = np.flatnonzero(search.bank >= (1 - params.tolerance) * search.bank_limit)
        needed.append(int(near[0]) + 1 if near.size else params.alpha_steps + 1)
    assert shown is not None
    write_rows(
        out / "fig8_convergence.csv",
        ("iteration", "alpha", "bank_benefit", "bank_closed_form", "loan", "loan_closed_form"),
        [
            (i + 1, f"{a:.6g}", f"{b:.6g}", f"{shown.bank_limit:.6g}", f"{r:.6g}", f"{shown.loan_limit:.6g}")
            for i, (a, b, r) in enumerate(zip(shown.rates, shown.bank, shown.loan, strict=True))
        ],
    )
    steps = list(range(1, params.alpha_steps + 1))
    lines(
        out / "fig8_convergence.png",
        [
            ("(a) a bank with its borrowers", "iteration", "benefit, coins", steps, {"Algorithm 1": list(shown.bank)}),
            ("(b) one borrower", "iteration", "loan, coins", steps, {"Algorithm 1": list(shown.loan)}),
        ],
        marks=False,
        levels={0: shown.bank_limit, 1: shown.loan_limit},
    )
    low, middle, high = (float(x) for x in np.percentile(needed, (2.5, 50.0, 97.5)))
    claim = Claim(
        figure="8",
        claim="iterations until the bank's benefit is close to its optimum",
        paper=19.0,
        ours=middle,
        interval=(low, high),
        verdict=STATED if low <= 19.0 <= high else "not reproduced",
        assumptions=f"close is within {100 * params.tolerance:g} % of the closed form; alpha rises by "
        f"{params.alpha_step:g} an iteration; the paper gives no step, and one of "
        f"{params.alpha_step * middle / 19.0:.3g} gives 19; "
        "Algorithm 1 with its second test read as >",
    )
    return [claim], ["fig8_convergence.csv", "fig8_convergence.png"]


def _figure_9(
    params: Params, grades: GradeCounts, rng: np.random.Generator, out: Path
) -> tuple[list[Claim], list[str]]:
    grid = np.linspace(0.1, 1.0, 19)
    population = _population(params)
    draw = draw_borrowers(rng, (params.draws, 1, params.borrowers), grades.shares, population)
    tables = []
    for letter in ("grade_factor", "repayment"):
        rows = []
        for value in grid:
            changed = msgspec.structs.replace(draw.borrowers, **{letter: np.full_like(draw.borrowers.repayment, value)})
            _, benefits = equilibrium(changed, params.alpha_max)
            per_draw = (benefits.bank if letter == "grade_factor" else benefits.borrower).mean(axis=(1, 2))
            rows.append((float(value), *(float(x) for x in (per_draw.mean(), *np.percentile(per_draw, (2.5, 97.5))))))
        tables.append(rows)
    write_rows(
        out / "fig9_factors.csv",
        ("factor", "value", "mean_benefit", "low", "high"),
        [
            (name, *(f"{x:.6g}" for x in row))
            for name, rows in zip(("gamma", "lambda"), tables, strict=True)
            for row in rows
        ],
    )

    def panel(title: str, x_label: str, rows: Sequence[tuple[float, ...]]):  # type: ignore[no-untyped-def]
        return (title, x_label, "benefit a borrower, coins", *(list(column) for column in zip(*rows, strict=True)))

    bands(
        out / "fig9_factors.png",
        [panel("(a) credit bank", "gamma", tables[0]), panel("(b) borrower", "lambda", tables[1])],
    )
    claims = []
    for figure, rows, sign, claim in (
        ("9a", tables[0], -1, "a bank's benefit falls as the credit grade factor rises: from gamma 0.1 to 1, %"),
        ("9b", tables[1], 1, "a borrower's benefit rises with its repayment ability: from lambda 0.1 to 1, %"),
    ):
        means = np.array([row[1] for row in rows])
        steady = bool(np.all(sign * np.diff(means) > 0))
        claims.append(
            Claim(
                figure=figure,
                claim=claim,
                paper=None,
                ours=100.0 * float(means[-1] / means[0] - 1.0),
                verdict=STATED if steady else "not reproduced",
                assumptions=f"means over {params.draws} draws of {params.borrowers} borrowers, common random numbers; "
                f"{'every step' if steady else 'not every step'} of the grid has the claimed direction",
            )
        )
    return claims, ["fig9_factors.csv", "fig9_factors.png"]


def _attacks(attempts: list[Attempt], out: Path) -> list[str]:
    """Write every attack and control of the security claims down (a table of our own, after the paper's figures)."""
    write_rows(
        out / "fig10_attacks.csv",
        ("claim", "attempt", "kind", "outcome", "how"),
        [
            (a.claim, a.what, "control" if a.control else "attack", "held" if a.held else "did not hold", a.how)
            for a in attempts
        ],
    )
    claims = sorted({attempt.claim for attempt in attempts})
    stopped = [[a.held for a in attempts if a.claim == claim and not a.control] for claim in claims]
    bars(
        out / "fig10_attacks.png",
        [f"{claim}\n{sum(held)} of {len(held)}" for claim, held in zip(claims, stopped, strict=True)],
        [100 * sum(held) / len(held) for held in stopped],
        title="attacks on the claims of section V-A that were stopped",
        x_label="claim",
        y_label="stopped, %",
    )
    return ["fig10_attacks.csv", "fig10_attacks.png"]


def _population(params: Params) -> Population:
    return Population(
        satisfaction=params.satisfaction,
        comfort=params.comfort,
        months_max=params.months_max,
        penalty_ratio=params.penalty_ratio,
        cost=params.cost,
        repayment_law=params.repayment_law,
        price=params.price,
        demand=params.demand,
    )


def _direction(
    figure: str, claim: str, measured: tuple[float, float, float], *, above: float, assumptions: str
) -> Claim:
    return Claim(
        figure=figure,
        claim=claim,
        paper=None,
        ours=measured[0],
        interval=measured[1:],
        verdict=STATED if measured[1] > above else "not reproduced",
        assumptions=assumptions,
    )


def _check(params: Params) -> None:
    for name in ("draws", "chain_runs", "pairs", "banks", "borrowers", "alpha_steps", "coins_per_trade", "aggregators"):
        if not 1 <= getattr(params, name) <= 100_000:
            raise RefusedInput(f"{name} is {getattr(params, name)}; give 1 to 100000")
    if params.draws * params.banks * params.borrowers > 20_000_000:
        raise RefusedInput("draws x banks x borrowers pass 20 million; lower one of them")
    if params.banks * params.borrowers < 5:
        raise RefusedInput("Fig. 7 picks five borrowers; give at least that many")
    for name in ("horizon_min", "classic_min", "energy_min", "price", "months_max", "heuristic_interest", "alpha_step"):
        if not 0 < getattr(params, name) < 1e9:
            raise RefusedInput(f"{name} is {getattr(params, name)}; give a number above 0")
    if not params.frequencies or not all(1 <= f <= 60 for f in (*params.frequencies, params.saturating_frequency)):
        raise RefusedInput("frequencies are 1 to 60 requests an hour")
    for name in ("satisfaction", "comfort", "cost"):
        low, high = getattr(params, name)
        if not 0 < low <= high < 1e12:
            raise RefusedInput(f"{name} is [{low}, {high}]; give a rising pair above 0")
    if not 0 <= params.demand < params.comfort[0]:
        raise RefusedInput(f"demand is {params.demand}; give 0 to below comfort's {params.comfort[0]:g}, so that k < 0")
    if not params.penalty_ratio > 1 or not 0 < params.tolerance < 1:
        raise RefusedInput("penalty_ratio must be above 1, tolerance between 0 and 1")
    for name in ("alpha_max", "average_amount"):
        value = getattr(params, name)
        if value is not None and not 0 < value < 1e12:
            raise RefusedInput(f"{name} is {value}; give a number above 0 or leave it out")
