"""The study of energy trading and credit: its models against closed forms, its verdicts, its files."""

import json

import numpy as np
import pytest

from gridpool.cli import main
from gridpool.errors import RefusedInput
from gridpool.markets.loans import Borrower, price_loan
from gridpool.studies import run_study
from gridpool.studies.li2018 import Params
from gridpool.studies.li2018_confirmation import simulate_pairs
from gridpool.studies.li2018_grades import GRADES, count_grades, published_grades
from gridpool.studies.li2018_loans import Population, draw_borrowers, equilibrium, search_rates
from gridpool.studies.li2018_security import Attempt, play_attacks, security_claims

VERDICTS = {"reproduced", "reproduced under stated assumptions", "not reproduced"}
POPULATION = Population(
    satisfaction=(20_000.0, 20_400.0),
    comfort=(2_000.0, 2_500.0),
    months_max=10.0,
    penalty_ratio=3.5,
    cost=(0.1, 0.2),
    repayment_law="uniform",
    price=1.0,
    demand=0.0,
)


def borrowers(shape=(1, 1, 20), seed=3):
    return draw_borrowers(np.random.default_rng(seed), shape, published_grades().shares, POPULATION).borrowers


def test_grade_counts_are_the_data_sets():
    grades = published_grades()
    assert len(grades.loans) == len(GRADES) == 35
    assert (grades.total, grades.loans[0], grades.loans[7], grades.loans[-1]) == (887_379, 22_913, 56_323, 576)


def test_a_csv_of_loans_is_counted(tmp_path):
    path = tmp_path / "loan.csv"
    path.write_text(
        'Notes offered by Prospectus\n"id","loan_amnt","sub_grade","desc"\n'
        '1,5000,B2,"a, ""b""\nc"\n2,1,G5,\n3,9,B2,x\n\n'
        "Total amount funded: 1\n"
    )
    counted = count_grades(path)
    assert counted.total == 3
    assert counted.loans[GRADES.index("B2")] == 2
    assert counted.loans[-1] == 1
    path.write_text("grade,loans\nA1,5\nG5,7\n")
    assert count_grades(path).total == 12


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "sub_grade\nZ9\n", "sub_grade\n", "grade,loans\nA1,-3\n"])
def test_a_csv_without_grades_is_refused(tmp_path, text):
    path = tmp_path / "loan.csv"
    path.write_text(text)
    with pytest.raises(RefusedInput):
        count_grades(path)


def pairs(**changes):
    given = {
        "pairs": 400,
        "horizon_min": 240.0,
        "frequency": 5.0,
        "confirmation_min": 10.0,
        "in_flight": 1,
        "spacing": "even",
    }
    return simulate_pairs(np.random.default_rng(1), **(given | changes))


def test_evenly_spaced_requests_wait_for_their_confirmation_alone_below_the_limit():
    assert pairs().wait_min == pytest.approx(10.0)
    # two trades in flight carry twice the limit: 60/60 * 2 an hour
    assert pairs(confirmation_min=60.0, in_flight=2, frequency=2.0).wait_min == pytest.approx(60.0)


def test_a_chain_finishes_no_more_than_its_limit_and_credit_finishes_every_request():
    classic = pairs(confirmation_min=60.0, frequency=12.0)
    assert 0.5 < classic.finished_per_hour <= 1.0
    assert pairs(in_flight=None).finished_per_hour == pytest.approx(5.0, abs=0.01)
    # five requests an hour, evenly spaced, never meet the energy chain's limit of six
    assert pairs().begun_per_hour == pairs(in_flight=None).begun_per_hour
    assert pairs(in_flight=None).total_wait_min == 0.0


def test_poisson_requests_wait_as_a_queue_with_fixed_service_does():
    """M/D/1: mean wait = T + rho T / (2 (1 - rho)); a long horizon, half the capacity."""
    measured = pairs(spacing="poisson", frequency=3.0, horizon_min=60_000.0, pairs=20)
    assert measured.wait_min == pytest.approx(10.0 + 0.5 * 10.0 / (2 * 0.5), rel=0.03)


def test_the_vector_equilibrium_is_the_priced_loan_of_each_borrower():
    many = borrowers()
    for alpha_max in (None, 2.0):
        alpha, benefits = equilibrium(many, alpha_max)
        for i in range(20):
            one = Borrower(
                **{
                    name: float(np.broadcast_to(getattr(many, name), (1, 1, 20))[0, 0, i])
                    for name in Borrower.__struct_fields__
                }
            )
            loan = price_loan(one, alpha_max=alpha_max)
            if loan.traded:
                assert alpha[0, 0, i] == pytest.approx(loan.alpha)
                assert benefits.bank[0, 0, i] == pytest.approx(loan.bank_profit)
                assert benefits.borrower[0, 0, i] == pytest.approx(loan.borrower_utility)
            else:
                assert benefits.loan[0, 0, i] == benefits.bank[0, 0, i] == 0.0


def test_algorithm_1_climbs_to_the_closed_form_and_never_above():
    search = search_rates(borrowers(), step=0.02, steps=2_000)
    assert np.all(np.diff(search.bank) >= 0)
    assert search.bank[-1] <= search.bank_limit * (1 + 1e-12)
    assert search.bank[-1] == pytest.approx(search.bank_limit, rel=5e-3)


@pytest.fixture(scope="module")
def attempts():
    return play_attacks(7)


def test_every_attack_is_refused_for_its_own_reason_and_every_control_succeeds(attempts):
    assert [a for a in attempts if not a.held] == []
    for claim in ("V-A.1", "V-A.2", "V-A.3", "V-A.4", "V-A.5"):
        assert sum(a.claim == claim and not a.control for a in attempts) >= 6
        assert any(a.claim == claim and a.control for a in attempts)


def test_one_attack_that_succeeds_or_one_control_that_fails_loses_the_claim(attempts):
    for lost in (
        Attempt("V-A.5", "a coin spent twice", False, False, "ok"),
        Attempt("V-A.5", "x", True, False, "failed"),
    ):
        claims = {claim.claim: claim for claim in security_claims([*attempts, lost], 7) if claim.figure == "V-A.5"}
        (claim,) = claims.values()
        assert claim.verdict == "not reproduced"
        assert lost.what in claim.assumptions
    healthy = [claim for claim in security_claims(attempts, 7) if claim.figure == "V-A.5"]
    assert healthy[0].verdict == "reproduced under stated assumptions"


def test_a_ledger_without_signatures_loses_the_claims(monkeypatch):
    """The attacks are real: with signature checks switched off, wallets are robbed and the study says so."""
    from gridpool.ledger.signatures import SignatureChecker

    monkeypatch.setattr(SignatureChecker, "check", lambda self, transactions: [True] * len(transactions))
    monkeypatch.setattr(SignatureChecker, "checked", lambda self, transactions: iter([True] * len(list(transactions))))
    lost = {a.claim for a in play_attacks(7) if not a.held}
    assert {"V-A.1", "V-A.2", "V-A.3", "V-A.4"} <= lost


def test_the_smoke_run_keeps_its_fields_and_gives_the_same_bytes_again(tmp_path, capsys):
    main(["study", "run", "li2018", "--smoke", "--out", str(tmp_path / "a"), "--json"])
    result = json.loads(capsys.readouterr().out)
    assert {"study", "claims", "files"} <= set(result)
    figures = {claim["figure"] for claim in result["claims"]}
    assert {"5a", "5b", "6", "7a", "7b", "8", "9a", "9b", "V-A.1", "V-A.2", "V-A.3", "V-A.4", "V-A.5"} <= figures
    for claim in result["claims"]:
        assert set(claim) >= {"figure", "claim", "paper", "ours", "interval", "verdict", "assumptions"}
        assert claim["verdict"] in VERDICTS
        assert claim["interval"] is None or claim["interval"][0] <= claim["ours"] <= claim["interval"][1]
    assert {claim["paper"] for claim in result["claims"]} >= {64.8, 226.9, 24.1, 5.7, 19.0}
    for suffix in (".csv", ".png"):
        for number in (5, 6, 7, 8, 9):
            assert any(name.startswith(f"fig{number}_") and name.endswith(suffix) for name in result["files"])
    main(["study", "run", "li2018", "--smoke", "--out", str(tmp_path / "b"), "--json"])
    for name in result["files"]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_parameters_are_validated_whole(tmp_path):
    for text in (
        "colour = 1",
        "draws = 0",
        "seed = -1",
        'random_law = "x"',
        "demand = 2500.0",
        "cost = [0.3, 0.1]",
        "draws = [",
    ):
        path = tmp_path / "params.toml"
        path.write_text(text)
        with pytest.raises(RefusedInput):
            run_study("li2018", out=tmp_path / "out", params=path, smoke=True)
    assert Params().penalty_ratio == 3.5
