"""Sensing: the detector's closed forms, fusion, reputation by evidence, incidents and claims."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spectrum_stage import CELLS, CENTRE, DAY, HOUR, LOW, MHZ, START, key, stage

from gridpool.agents.energy_detector import detection, energies, false_alarm, threshold_for
from gridpool.contracts.spectrum_lately import LATELY
from gridpool.contracts.spectrum_leases import DeclareUse, Heartbeat, RelinquishLease, RequestLease
from gridpool.contracts.spectrum_sensing import (
    INCIDENTS,
    ROUNDS,
    SENSORS,
    SLOT_MS,
    ClaimDisturbance,
    GiveEvidence,
    Report,
    Reputation,
    SubmitReport,
    belief_ppm,
    fuse,
    reputation_ppm,
)
from gridpool.contracts.spectrum_transfers import MoveLease

BIN = LOW // (10 * MHZ)
LOUD, QUIET = -80_000, -120_000


@pytest.mark.parametrize("signal", ["gaussian", "constant"])
def test_the_detector_matches_its_closed_form(signal):
    rng = np.random.default_rng(4)
    samples, snr, trials = 40, 0.3, 40_000
    thresholds = threshold_for(np.array([0.5, 0.1, 0.01]), samples)
    noise, heard = energies(trials, samples, 0.0, rng), energies(trials, samples, snr, rng, signal)
    for threshold in thresholds:
        for drawn, exact in (
            (noise, float(false_alarm(threshold, samples))),
            (heard, float(detection(threshold, samples, snr, signal))),
        ):
            assert abs(np.mean(drawn >= threshold) - exact) < 5 * np.sqrt(exact * (1 - exact) / trials)


def reports(votes: list[bool], quality: int = 1_000_000) -> tuple[Report, ...]:
    return tuple(Report(bytes([i]) * 32, 0, quality, vote) for i, vote in enumerate(votes))


def test_fusion_is_k_of_n_for_equal_sensors():
    new = Reputation(0, 0)
    assert fuse(reports([True, True, True, False, False]), (new,) * 5, 3, 5)
    assert not fuse(reports([True, True, False, False, False]), (new,) * 5, 3, 5)
    assert not fuse((), (), 3, 5)


def test_sensors_no_better_than_a_coin_do_not_count():
    liar, honest = Reputation(0, 20), Reputation(20, 20)
    assert not fuse(reports([True, True, True, False]), (liar, liar, liar, honest), 1, 2)
    assert fuse(reports([False, False, True]), (liar, liar, honest), 1, 2)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=12))
def test_belief_is_bayes_with_each_sensors_reputation(sensors):
    votes = reports([vote for vote, _, _ in sensors])
    reputations = tuple(Reputation(min(a, b), b) for _, a, b in sensors)
    odds = 1.0
    for report, reputation in zip(votes, reputations, strict=True):
        right = min(max(reputation_ppm(reputation), 1_000), 999_000) / 1e6
        odds *= right / (1 - right) if report.occupied else (1 - right) / right
    assert belief_ppm(votes, reputations) == pytest.approx(1e6 * odds / (1 + odds), abs=2)


def report_all(ledger, levels: list[int], *, start: int = START) -> None:
    ledger.advance(start + SLOT_MS)
    for i, level in enumerate(levels):
        ledger.expect(key(f"sensor{i}"), SubmitReport(1, CENTRE, BIN, start, level))
    ledger.advance(start + 2 * SLOT_MS)


def test_transmission_without_a_lease_becomes_an_incident_that_a_lessee_can_claim():
    ledger = stage()
    wish = RequestLease(1, LOW, LOW + 10 * MHZ, (CENTRE,), START, START + DAY, -10_000)
    ledger.expect(key("one"), wish)
    report_all(ledger, [LOUD] * 4 + [QUIET])
    incident = ledger.get(INCIDENTS, 1)
    assert (incident.cell, incident.low, incident.reports) == (CENTRE, LOW, 5)
    assert incident.belief_ppm > 900_000
    assert ledger.submit(key("two"), ClaimDisturbance(1, 1)).code == "not_the_lessee"
    ledger.expect(key("one"), ClaimDisturbance(1, 1))
    assert ledger.submit(key("one"), ClaimDisturbance(1, 1)).code == "already_claimed"
    assert [claim.lease for claim in ledger.get(INCIDENTS, 1).claims] == [1]
    # Sensors were judged by a belief above 90 %: the quiet one lost.
    assert ledger.get(SENSORS, key("sensor0").public).agreed == 1
    assert ledger.get(SENSORS, key("sensor4").public).agreed == 0


@pytest.mark.parametrize("leaves", ["expires", "relinquishes", "moves"])
def test_who_was_authorised_until_a_moment_ago_is_no_incident(leaves):
    ledger = stage()
    end = START + (SLOT_MS if leaves == "expires" else DAY)
    ledger.expect(key("one"), RequestLease(1, LOW, LOW + 10 * MHZ, (CENTRE,), START, end, 0))
    ledger.expect(key("one"), Heartbeat(1), DeclareUse(1, True))
    ledger.advance(START + SLOT_MS)
    if leaves == "relinquishes":
        ledger.expect(key("one"), RelinquishLease(1))
    elif leaves == "moves":
        ledger.expect(key("one"), MoveLease(1, (CELLS[0],)))
    report_all(ledger, [LOUD] * 5)
    assert ledger.get(ROUNDS, (1, CENTRE, BIN, START)).occupied
    assert ledger.get(INCIDENTS, 1) is None
    assert ledger.get(SENSORS, key("sensor0").public).agreed == 1
    # In the next slot nobody may be heard there, and nothing is kept longer than that takes to find out.
    report_all(ledger, [LOUD] * 5, start=START + 2 * SLOT_MS)
    assert ledger.get(INCIDENTS, 1).start == START + 2 * SLOT_MS
    assert not list(ledger.scan(LATELY))


def test_an_authorised_lessee_is_no_incident_and_settles_reputations():
    ledger = stage()
    ledger.expect(key("one"), RequestLease(1, LOW, LOW + 10 * MHZ, (CENTRE,), START, START + DAY, 0))
    ledger.expect(key("one"), Heartbeat(1), DeclareUse(1, True))
    report_all(ledger, [QUIET, QUIET, QUIET, LOUD])
    assert not list(ledger.scan(INCIDENTS))
    assert ledger.get(SENSORS, key("sensor3").public).agreed == 1
    assert ledger.get(SENSORS, key("sensor0").public).agreed == 0


def test_an_empty_band_is_no_incident_and_evidence_settles_a_doubtful_round_once():
    ledger = stage()
    report_all(ledger, [QUIET, QUIET, LOUD])
    assert not list(ledger.scan(INCIDENTS))
    known = ledger.get(ROUNDS, (1, CENTRE, BIN, START))
    assert known.fused
    assert not known.settled
    evidence = GiveEvidence(1, CENTRE, BIN, START, True)
    assert ledger.submit(key("one"), evidence).code == "role_missing"
    ledger.expect(key("probe"), evidence)
    assert ledger.get(SENSORS, key("sensor2").public) == Reputation(1, 1)
    assert ledger.get(SENSORS, key("sensor0").public) == Reputation(0, 1)
    assert ledger.submit(key("probe"), evidence).code == "not_open_to_evidence"


def test_reports_come_once_from_sensors_and_in_time():
    ledger = stage()
    good = SubmitReport(1, CENTRE, BIN, START, LOUD)
    assert ledger.submit(key("sensor0"), good).code == "not_the_time_to_report"
    ledger.advance(START + SLOT_MS)
    assert ledger.submit(key("one"), good).code == "role_missing"
    ledger.expect(key("sensor0"), good)
    assert ledger.submit(key("sensor0"), good).code == "already_reported"
    assert ledger.submit(key("sensor0"), SubmitReport(1, 5, BIN, START, LOUD)).code == "not_a_cell_of_the_class"
    assert ledger.submit(key("sensor0"), SubmitReport(1, CENTRE, 1, START, LOUD)).code == "not_a_bin_of_the_class"
    ledger.advance(START + HOUR)
    assert ledger.submit(key("sensor1"), good).code == "not_the_time_to_report"


def test_reputation_silences_liars():
    ledger = stage()
    for number in range(12):
        start = START + number * 2 * SLOT_MS
        truth = number % 2 == 0
        said = [LOUD if truth else QUIET] * 4 + [QUIET if truth else LOUD] * 3
        report_all(ledger, said, start=start)
        if not ledger.get(ROUNDS, (1, CENTRE, BIN, start)).settled:
            ledger.expect(key("probe"), GiveEvidence(1, CENTRE, BIN, start, truth))
    assert ledger.get(SENSORS, key("sensor0").public).agreed == 12
    assert ledger.get(SENSORS, key("sensor6").public).agreed == 0
    start = START + 12 * 2 * SLOT_MS
    report_all(ledger, [LOUD, QUIET, QUIET, QUIET, LOUD, LOUD, LOUD], start=start)
    assert not ledger.get(ROUNDS, (1, CENTRE, BIN, start)).occupied
