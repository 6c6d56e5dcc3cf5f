"""``gridpool telemetry``: make and ingest signed readings, prove one, compare aggregators, see what scales."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter

from gridpool.cli.output import emit, progress, table

__all__ = ["app"]

app = App(name="telemetry", help="Make and ingest signed readings at scale.")

Json = Annotated[bool, Parameter(negative="")]


@app.command
def make(
    *,
    readings: int,
    devices: int,
    seed: int,
    out: Path,
    mode: Literal["signature", "session"] = "signature",
    aggregator: str | None = None,
    json: Json = False,
) -> None:
    """Make a file of signed readings, the same bytes for the same seed.

    Example: ``gridpool telemetry make --readings 10000 --devices 100 --seed 1 --out readings.jsonl --json``

    Parameters
    ----------
    readings
        How many.
    devices
        How many devices take turns, one reading each a quarter of an hour.
    seed
        Seed of keys and values; the keys are for tests only.
    out
        File to write, .jsonl or .parquet.
    mode
        A signature on every reading, or one a session and codes under a chain of keys.
    aggregator
        Key of the aggregator with whom sessions are opened (64 hexadecimal digits, or a wallet file).
    json
        Print one JSON object.
    """
    import time

    import numpy as np

    from gridpool.agents.telemetry_file import make_readings
    from gridpool.agents.wallet_founding import public_of
    from gridpool.errors import RefusedInput

    if seed < 0:
        raise RefusedInput(f"a seed is 0 or more, not {seed}")
    if mode == "session" and aggregator is None:
        raise RefusedInput("sessions are opened with an aggregator; give its key or wallet with --aggregator")
    hub = public_of(aggregator) if mode == "session" and aggregator is not None else None
    begun = time.perf_counter()
    with progress("signing", readings) as advance:
        size = make_readings(
            out,
            readings=readings,
            devices=devices,
            generator=np.random.default_rng(seed),
            aggregator=hub,
            advance=advance,
        )
    emit(
        {
            "readings": readings,
            "devices": min(devices, readings),
            "seed": seed,
            "mode": mode,
            "file": str(out),
            "bytes": size,
            "seconds": time.perf_counter() - begun,
        },
        json=json,
    )


@app.command
def ingest(
    readings: Path,
    /,
    *,
    home: Path | None = None,
    wallet: Path | None = None,
    registered: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Verify readings, build their tree and, with a home, anchor its root; bad readings are refused one by one.

    A file holds one interval's readings. A folder without ledger gets one with a single member and its key. Equal
    accepted readings have an equal root, in whatever order and format they come.

    Example: ``gridpool telemetry ingest readings.jsonl --home out/edge --json``

    Parameters
    ----------
    readings
        File of readings, .jsonl or .parquet.
    home
        Home of a node on this machine; without it nothing is anchored.
    wallet
        Wallet file of the aggregator (its certificate key acts); by default the one made with the home.
    registered
        Refuse devices whose key is no registered wallet of the ledger, or is no longer valid.
    json
        Print one JSON object.
    """
    from contextlib import ExitStack

    from gridpool.agents.records_home import found_where_none, member_keys
    from gridpool.agents.slice_ledger import slice_session
    from gridpool.agents.telemetry import ingest as take
    from gridpool.agents.telemetry import registered_devices
    from gridpool.agents.telemetry_file import count_lines
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.errors import RefusedInput

    if registered and home is None:
        raise RefusedInput("whether devices are registered stands on a ledger; give --home DIR")
    if not readings.is_file():
        raise RefusedInput(f"no file {readings}; give readings as .jsonl or .parquet")
    lines = count_lines(readings)
    key = None if wallet is None else load_wallet(wallet).certificate
    with ExitStack() as stack:
        session = None
        if home is not None:
            if wallet is None:
                found_where_none(home)
            key = member_keys(home, wallet).certificate
            session = stack.enter_context(slice_session(str(home), writable=True))
        advance = stack.enter_context(progress("verifying", lines))
        known = registered_devices(session) if registered and session is not None else None
        result = take(readings, session=session, key=key, known=known, advance=advance)
    gathered, anchored = result.gathered, result.anchored
    emit(
        {
            "readings": gathered.readings,
            "accepted": gathered.accepted,
            "refused": gathered.refused,
            "refusals": [{"line": refusal.line, "reason": refusal.reason} for refusal in gathered.refusals],
            "root": gathered.tree.root.hex(),
            "seconds": result.seconds,
            "readings_per_s": gathered.readings / result.seconds,
            "sessions": gathered.sessions,
            "start": gathered.start if gathered.accepted else None,
            "end": gathered.end if gathered.accepted else None,
            "tx": None if anchored is None else anchored.tx.hex(),
            "number": None if anchored is None else anchored.number,
        },
        json=json,
    )


@app.command
def prove(
    readings: Path,
    /,
    *,
    device: str,
    start: int,
    out: Path,
    wallet: Path | None = None,
    json: Json = False,
) -> None:
    """Prove that a device's reading is among an interval's accepted ones.

    Example: ``gridpool telemetry prove readings.jsonl --device 9f2c... --start 1767225600000 --out reading.proof``

    Parameters
    ----------
    readings
        The file that was ingested.
    device
        Key of the device (64 hexadecimal digits).
    start
        Start of the reading (ms).
    out
        File for the proof.
    wallet
        Wallet file of the aggregator, where devices opened sessions with it.
    json
        Print one JSON object.
    """
    from gridpool.agents.telemetry import ingest as take
    from gridpool.agents.telemetry import prove_reading
    from gridpool.agents.telemetry_file import count_lines
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.agents.wallet_text import parse_hash
    from gridpool.errors import RefusedInput

    key = parse_hash(device, "device's key")
    if not 0 <= start < 2**63:
        raise RefusedInput(f"{start} is no time; give milliseconds since 1970")
    if not readings.is_file():
        raise RefusedInput(f"no file {readings}; give readings as .jsonl or .parquet")
    with progress("verifying", count_lines(readings)) as advance:
        own = None if wallet is None else load_wallet(wallet).certificate
        tree = take(readings, key=own, advance=advance).gathered.tree
    proof = prove_reading(tree, key, start)
    partial = out.with_name(f".{out.name}.partial")
    try:
        partial.write_bytes(proof)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    emit({"file": str(out), "bytes": len(proof), "root": tree.root.hex(), "readings": tree.count}, json=json)


@app.command
def check(proof: Path, /, *, home: Path, json: Json = False) -> None:
    """Check a device's proof against the roots on a ledger; exit 3 where it leads to none of them.

    Example: ``gridpool telemetry check reading.proof --home out/edge``

    Parameters
    ----------
    proof
        File that ``telemetry prove`` wrote.
    home
        Home of a node on this machine.
    json
        Print one JSON object.
    """
    from gridpool.agents.slice_ledger import slice_session
    from gridpool.agents.telemetry import check_proof
    from gridpool.agents.wallet_text import read_text

    data = read_text(proof, most=8_192).encode()
    with slice_session(str(home)) as session:
        held, anchors = check_proof(data, session.state)
    reading = held.reading
    emit(
        {
            "device": reading.device.hex(),
            "start": reading.start,
            "value": reading.value,
            "anchors": msgspec.to_builtins(anchors),
        },
        json=json,
    )


@app.command
def roots(*, home: Path, json: Json = False) -> None:
    """List the roots that aggregators have anchored.

    Example: ``gridpool telemetry roots --home out/edge``

    Parameters
    ----------
    home
        Home of a node on this machine.
    json
        Print one JSON object.
    """
    from gridpool.agents.slice_ledger import slice_session
    from gridpool.agents.telemetry import anchors_of

    with slice_session(str(home)) as session:
        anchors = anchors_of(session.state)
    rows = [(one.aggregator, one.start, one.end, one.number, one.count, one.root) for one in anchors]
    text = table(("aggregator", "start", "end", "number", "readings", "root"), rows)
    emit({"roots": msgspec.to_builtins(anchors)}, json=json, text=text)


@app.command
def locate(
    first: Path,
    second: Path,
    /,
    *,
    home: Path | None = None,
    report: Annotated[bool, Parameter(negative="")] = False,
    wallet: Path | None = None,
    json: Json = False,
) -> None:
    """Name the devices whose readings differ between two aggregators' files; exit 3 where any does.

    With a home the answer also says which of the two files is the one whose root was anchored.

    Example: ``gridpool telemetry locate north.jsonl south.jsonl --home out/edge --json``

    Parameters
    ----------
    first
        One aggregator's readings.
    second
        The other's.
    home
        Home of a node on this machine.
    report
        Establish the differences on the ledger, with proofs and signatures; both roots must be anchored.
    wallet
        Wallet file of who reports; by default the one made with the home.
    json
        Print one JSON object.
    """
    from gridpool.agents.records_home import member_keys
    from gridpool.agents.slice_ledger import slice_session
    from gridpool.agents.telemetry import anchors_of, compare_files, show_differences
    from gridpool.errors import RefusedInput, VerificationFault

    if report and home is None:
        raise RefusedInput("differences are established on a ledger; give --home DIR")
    comparison = compare_files(first, second)
    found = comparison.found
    agrees, shown = None, []
    if home is not None:
        with slice_session(str(home), writable=report) as session:
            anchored = {one.root for one in anchors_of(session.state)}
            if report and found:
                shown = show_differences(session, member_keys(home, wallet).certificate, comparison)
        agrees = [tree.root.hex() in anchored for tree in comparison.trees]
    emit(
        {
            "ok": not found,
            "differences": msgspec.to_builtins(found),
            "hashes": comparison.hashes,
            "roots": [tree.root.hex() for tree in comparison.trees],
            "agrees_with_ledger": agrees,
            "transactions": shown,
        },
        json=json,
        text=table(
            ("device", "start", "first", "second", "first signed", "second signed"),
            [(one.device, one.start, one.first, one.second, one.first_signed, one.second_signed) for one in found],
        ),
    )
    if found:
        raise VerificationFault(f"{first} and {second} differ in {len(found)} reading{'s' * (len(found) != 1)}")


@app.command
def scale(
    *,
    devices: int = 10_000_000,
    aggregators: int = 1_000,
    validators: int = 10,
    interval: float = 900.0,
    jitter: float = 60.0,
    seed: int = 1,
    verify_per_s: float | None = None,
    tree_per_s: float | None = None,
    json: Json = False,
) -> None:
    """Simulate how long readings take to an anchored root as devices, aggregators and validators grow.

    Example: ``gridpool telemetry scale --devices 10000000 --aggregators 1000 --validators 10 --json``

    Parameters
    ----------
    devices
        Devices, one reading each an interval.
    aggregators
        Edge aggregators (two cores each), one transaction each an interval.
    validators
        Validators of the ledger.
    interval
        Seconds.
    jitter
        Seconds over which devices spread their sending.
    seed
        Seed of the simulation.
    verify_per_s
        Signatures a second and core; by default measured on this machine.
    tree_per_s
        Readings a second that a tree takes in; by default measured on this machine.
    json
        Print one JSON object.
    """
    import numpy as np

    from gridpool.agents.telemetry_scale import measure_rates, simulate_scaling
    from gridpool.errors import RefusedInput

    if seed < 0 or not all(rate is None or 0 < rate < 1e9 for rate in (verify_per_s, tree_per_s)):
        raise RefusedInput("a seed is 0 or more and a rate above 0; change what lies outside")
    rates = measure_rates()
    if verify_per_s is not None:
        rates = msgspec.structs.replace(rates, verify_per_s=verify_per_s, execute_per_s=verify_per_s / 2)
    if tree_per_s is not None:
        rates = msgspec.structs.replace(rates, tree_per_s=tree_per_s)
    with progress("simulating", 100) as advance:
        result = simulate_scaling(
            devices=devices,
            aggregators=aggregators,
            validators=validators,
            rates=rates,
            generator=np.random.default_rng(seed),
            interval_s=interval,
            jitter_s=jitter,
            advance=advance,
        )
    emit(msgspec.to_builtins(result) | {"seed": seed, "rates": msgspec.to_builtins(rates)}, json=json)
