"""Li et al. 2018, "Consortium Blockchain for Secure Energy Trading in Industrial Internet of Things".

Figs. 5 to 9 and the security claims of section V-A, each with a verdict. A numeric claim is reproduced under stated
assumptions where the paper's figure lies in our 95 % interval; a claim about a direction where our whole interval has
that direction. What the paper leaves out is a parameter.
"""

from pathlib import Path

import msgspec
import numpy as np

from gridpool.studies.li2018_charts import bars, write_rows
from gridpool.studies.li2018_figures import figure_5, figure_6, figure_7, figure_8, figure_9
from gridpool.studies.li2018_grades import count_grades, published_grades
from gridpool.studies.li2018_params import Params, check_params
from gridpool.studies.li2018_security import Attempt, play_attacks, security_claims
from gridpool.studies.study import Claim, Study, StudyResult

__all__ = ["STUDY", "Params"]


def _run(params: Params, out: Path, smoke: bool, scheduler: str | None) -> StudyResult:
    check_params(params)
    if smoke:
        params = msgspec.structs.replace(params, draws=min(params.draws, 300), chain_runs=min(params.chain_runs, 20))
    grades = published_grades() if params.lending_club_csv is None else count_grades(Path(params.lending_club_csv))
    claims: list[Claim] = []
    files: list[str] = []
    for number, part in enumerate((figure_5, figure_6, figure_7, figure_8, figure_9)):
        rng = np.random.default_rng((params.seed, number))
        found, written = part(params, grades, rng, out)
        claims += found
        files += written
    attempts = play_attacks(params.seed)
    claims += security_claims(attempts, params.seed)
    files += table_of_attacks(attempts, out)
    return StudyResult(study="li2018", claims=claims, files=files, seed=params.seed, params=msgspec.to_builtins(params))


STUDY = Study(params=Params, run=_run)


def table_of_attacks(attempts: list[Attempt], out: Path) -> list[str]:
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
