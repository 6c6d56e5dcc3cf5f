"""The attack against exact fractions, a linear system of the race, Monte Carlo and the printed formula."""

import math
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.errors import RefusedInput
from gridpool.lab.attack import Attack, attack_success, published_success, race_blocks, ratio_from_share
from gridpool.lab.simulation import simulate_attack


def exact(beta: Fraction, confirmations: int, top: int | None, needed: int) -> tuple[Fraction, Fraction | None]:
    """Success and race length in exact fractions, the race by solving its recurrence."""
    p, q = 1 / (1 + beta), beta / (1 + beta)

    def ruin(x: int) -> Fraction:
        if x <= 0:
            return Fraction(1)
        if top is None:
            return min(beta, Fraction(1)) ** x
        if x >= top:
            return Fraction(0)
        return Fraction(top - x, top) if beta == 1 else (beta**x - beta**top) / (1 - beta**top)

    def length(x: int) -> Fraction:
        if x <= 0 or top is None or x >= top:
            return Fraction(0)
        return Fraction(x * (top - x)) if beta == 1 else (top * (1 - ruin(x)) - x) / (p - q)

    success, blocks, before = Fraction(0), Fraction(0), Fraction(0)
    for n in range(needed):
        weight = comb(n + confirmations - 1, n) * p**confirmations * q**n
        before += weight
        success += weight * ruin(needed - n)
        blocks += weight * length(needed - n)
    return success + 1 - before, None if top is None else blocks


@pytest.mark.parametrize("beta", ["1/10", "1/2", "99/100", "1", "101/100", "3/2", "5"])
@pytest.mark.parametrize("confirmations", [1, 2, 6, 30])
@pytest.mark.parametrize("give_up", [None, 0, 1, 7, 40])
def test_success_and_race_agree_with_exact_fractions(beta: str, confirmations: int, give_up: int | None) -> None:
    ratio = Fraction(beta)
    threshold = math.inf if give_up is None else float(give_up)
    for abort, success in (("exceeds", "ahead"), ("reaches", "ahead"), ("exceeds", "tie"), ("reaches", "tie")):
        lead = 1 if success == "ahead" else 0
        top = None if give_up is None else give_up + (1 if abort == "exceeds" else 0) + lead
        attack = Attack(beta=float(ratio), confirmations=confirmations, give_up=threshold, abort=abort, success=success)
        chance, blocks = exact(ratio, confirmations, top, confirmations + lead)
        assert attack_success(attack) == pytest.approx(float(chance), rel=1e-9)
        if blocks is not None:
            assert race_blocks(attack) == pytest.approx(float(blocks), rel=1e-8, abs=1e-12)


def test_the_default_is_the_sum_of_the_specification() -> None:
    """S = 1 - sum over n = 0..N of NB(n) (1 - h(N - n + 1)) with T = give-up + 2."""
    n_confirmations, beta, top = 4, 0.7, 5 + 2
    p, q = 1 / (1 + beta), beta / (1 + beta)
    total = 0.0
    for n in range(n_confirmations + 1):
        x = n_confirmations - n + 1
        h = (beta**x - beta**top) / (1 - beta**top)
        total += comb(n + n_confirmations - 1, n) * p**n_confirmations * q**n * (1 - h)
    assert attack_success(Attack(beta=beta, confirmations=4, give_up=5)) == pytest.approx(1 - total, rel=1e-12)


def test_the_printed_formula_is_the_case_without_a_threshold() -> None:
    for beta in (0.05, 0.4, 0.95):
        for confirmations in (1, 3, 60, 200):
            without = attack_success(Attack(beta=beta, confirmations=confirmations))
            printed = published_success(Attack(beta=beta, confirmations=confirmations, give_up=3))
            assert printed == pytest.approx(without, rel=1e-12)
    assert published_success(Attack(beta=1.0, confirmations=3, give_up=3)) == 1.0


def test_the_race_solved_as_a_linear_system() -> None:
    beta, top = 0.8, 9
    p, q = 1 / (1 + beta), beta / (1 + beta)
    size = top + 1
    system, right = np.eye(size), np.ones(size)
    right[0] = right[top] = 0
    for x in range(1, top):
        system[x, x - 1] -= q
        system[x, x + 1] -= p
    lengths = np.linalg.solve(system, right)
    attack = Attack(beta=beta, confirmations=1, give_up=top - 2)
    expected = p * lengths[2] + p * q * lengths[1]
    assert race_blocks(attack) == pytest.approx(expected, rel=1e-10)


def test_a_race_never_given_up_has_a_mean_only_against_a_weaker_chain() -> None:
    assert race_blocks(Attack(beta=0.5, confirmations=2)) is None
    assert race_blocks(Attack(beta=1.0, confirmations=2)) is None
    beta = 2.0
    p, q = 1 / 3, 2 / 3
    expected = sum(comb(n + 1, n) * p**2 * q**n * (3 - n) for n in range(3)) / (q - p)
    assert race_blocks(Attack(beta=beta, confirmations=2)) == pytest.approx(expected, rel=1e-12)
    assert attack_success(Attack(beta=beta, confirmations=2)) == 1.0


def test_two_claims_of_the_paper_fail_with_a_threshold() -> None:
    few, many = (attack_success(Attack(beta=1.0, confirmations=3, give_up=g)) for g in (2, 50))
    assert few < 0.75 < many < 1


def test_confirmations_up_to_200_neither_overflow_nor_lose_small_probabilities() -> None:
    for beta in (1e-6, 0.1, 0.5, 1.0, 1.0000001, 30.0, 1e6):
        for give_up in (math.inf, 10.0, 500.0):
            chances = [attack_success(Attack(beta=beta, confirmations=n, give_up=give_up)) for n in (1, 50, 200)]
            assert all(0 <= chance <= 1 for chance in chances)
    # Exact by fractions, far below what 1 minus a sum could hold.
    chance, _ = exact(Fraction(1, 10), 200, None, 201)
    assert 0 < float(chance) < 1e-60
    assert attack_success(Attack(beta=0.1, confirmations=200)) == pytest.approx(float(chance), rel=1e-9)


def test_the_race_length_is_smooth_at_beta_one() -> None:
    at_one = race_blocks(Attack(beta=1.0, confirmations=3, give_up=20))
    for step in (1e-12, 1e-9, 1e-6):
        assert race_blocks(Attack(beta=1 + step, confirmations=3, give_up=20)) == pytest.approx(
            at_one, rel=20 * step + 1e-12
        )


def test_pre_mined_blocks_and_a_later_first_confirmation() -> None:
    base = attack_success(Attack(beta=0.5, confirmations=3, give_up=6))
    assert attack_success(Attack(beta=0.5, confirmations=3, give_up=6, pre_mined=1)) > base
    later = Attack(beta=0.5, confirmations=3, give_up=6, attacked_block_counts=False)
    assert attack_success(later) == pytest.approx(
        attack_success(Attack(beta=0.5, confirmations=4, give_up=6)), rel=1e-12
    )
    assert attack_success(Attack(beta=0.5, confirmations=3, pre_mined=4)) == 1.0


def test_beta_as_a_share() -> None:
    assert ratio_from_share(0.25) == pytest.approx(1 / 3)
    with pytest.raises(RefusedInput, match="share"):
        ratio_from_share(1.0)


@settings(deadline=None, max_examples=150)
@given(
    beta=st.floats(0, 50), n=st.integers(1, 200), give_up=st.one_of(st.just(math.inf), st.integers(0, 300).map(float))
)
def test_success_rises_with_patience_and_power(beta: float, n: int, give_up: float) -> None:
    chance = attack_success(Attack(beta=beta, confirmations=n, give_up=give_up))
    assert 0 <= chance <= 1
    assert attack_success(Attack(beta=beta, confirmations=n, give_up=give_up + 1)) >= chance * (1 - 1e-9)
    assert attack_success(Attack(beta=beta * 1.1, confirmations=n, give_up=give_up)) >= chance * (1 - 1e-9)
    assert attack_success(Attack(beta=beta, confirmations=n, give_up=give_up, success="tie")) >= chance * (1 - 1e-9)


@pytest.mark.parametrize("engine", ["recursion", "lanes"])
@pytest.mark.parametrize(
    "changes",
    [
        {"beta": 0.5},
        {"beta": 0.5, "give_up": 4.0},
        {"beta": 1.0, "give_up": 4.0},
        {"beta": 1.0, "give_up": 0.0, "success": "tie", "abort": "reaches"},
        {"beta": 1.6, "give_up": 8.0, "abort": "reaches"},
        {"beta": 1.6},
        {"beta": 0.7, "give_up": 6.0, "pre_mined": 2},
        {"beta": 0.7, "give_up": 6.0, "attacked_block_counts": False, "success": "tie"},
        {"beta": 0.0, "give_up": 6.0},
    ],
    ids=str,
)
def test_monte_carlo_agrees_within_four_standard_errors(changes: dict[str, float], engine: str) -> None:
    for confirmations in (1, 5):
        attack = Attack(confirmations=confirmations, **changes)  # type: ignore[arg-type]
        trials = 400_000
        found = simulate_attack(attack, engine=engine, events=trials, replicas=32, seed=1)  # type: ignore[arg-type]
        chance = attack_success(attack)
        assert abs(found.mean - chance) <= 4 * math.sqrt(chance * (1 - chance) / trials)
        assert found.ci95[0] <= found.mean <= found.ci95[1]
        expected = race_blocks(attack)
        if engine == "recursion" and expected is not None:
            assert found.race_blocks == pytest.approx(expected, rel=0.02)


def test_races_that_would_not_end_are_refused() -> None:
    with pytest.raises(RefusedInput, match="set --give-up"):
        simulate_attack(Attack(beta=1.0, confirmations=2), engine="lanes", events=1000, replicas=20, seed=1)


@pytest.mark.parametrize(
    "changes", [{"beta": -0.1}, {"beta": math.nan}, {"confirmations": 0}, {"give_up": 1.5}, {"give_up": -1.0}]
)
def test_values_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(RefusedInput):
        Attack(**({"beta": 0.5, "confirmations": 3} | changes))  # type: ignore[arg-type]
