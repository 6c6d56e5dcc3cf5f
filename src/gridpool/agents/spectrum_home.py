"""A register on this machine: loaded into an embedded ledger, asked, and acted upon by the members whose keys are here.

``DIR`` is a node's home with ``DIR/keys/NAME.key`` beside it for the members that brought no wallet of their own.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from gridpool.agents.spectrum_inquiry import Inquired, Question, RecordingReader, answer
from gridpool.agents.spectrum_place import cells_under
from gridpool.agents.spectrum_register_file import Founding, founding, read_register, timestamp
from gridpool.contracts import RULES
from gridpool.contracts.members import MEMBERS
from gridpool.contracts.spectrum_access import DENIALS, HISTORY, jain_ppm
from gridpool.contracts.spectrum_leases import RequestLease
from gridpool.contracts.spectrum_records import CLASSES, IDLE, LEASES, NUMBERS, Lease
from gridpool.contracts.spectrum_sensing import INCIDENTS
from gridpool.engines.embedded import Embedded
from gridpool.engines.engine import Refusal
from gridpool.engines.home import node_key_at
from gridpool.errors import RefusedInput
from gridpool.ledger.chain import Ledger
from gridpool.ledger.clock import AdvanceClock
from gridpool.ledger.contract import NONCES
from gridpool.ledger.execution import market_time
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair, load_key, save_key
from gridpool.ledger.state import State
from gridpool.ledger.transaction import Receipt, sign
from gridpool.ledger.types import Call
from gridpool.ledger.view import View, locate

__all__ = ["Loaded", "SpectrumHome", "load_register"]


class Loaded(msgspec.Struct, frozen=True):
    """A register that was loaded: what it holds and where the ledger stands."""

    height: int
    app_hash: bytes
    counts: dict[str, int]


def load_register(file: Path, home: Path) -> Loaded:
    """Load a register file into a new ledger in ``home``; nothing is left behind where it is refused.

    Raises RefusedInput where the file is broken, contradicts itself or breaks a limit, or ``home`` is taken.
    """
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise RefusedInput(f"{home} exists and is not empty; choose another folder")
    register = read_register(file.read_bytes(), str(file))
    begun = founding(register, str(file))
    genesis = Genesis(
        chain=f"spectrum-{begun.name}",
        time_ms=begun.start,
        market_clock="ticks",
        clock_keeper=begun.node.public,
        max_step_ms=2**60,
        validators=((begun.node.public, 1),),
        parameters=begun.parameters,
    )
    home.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))
    try:
        loaded = _create(partial, begun, genesis, register_counts(register))
        if home.exists():
            home.rmdir()
        partial.rename(home)
    except RefusedInput as error:
        raise RefusedInput(f"{file}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return loaded


def register_counts(register: object) -> dict[str, int]:
    """Return how many records of each kind a register file holds."""
    kinds = ("licences", "protected", "idle", "leases", "members")
    return {kind: len(getattr(register, kind)) for kind in kinds}


def _create(home: Path, begun: Founding, genesis: Genesis, counts: dict[str, int]) -> Loaded:
    with Embedded.create(home, genesis, RULES, key=begun.node, interval_ms=None) as engine:
        (home / "keys").mkdir()
        for name, key in begun.keys.items():
            save_key(home / "keys" / f"{name}.key", key)
        return Loaded(engine.height, engine.app_hash, counts)


class SpectrumHome:
    """An open register; use it in a ``with`` block."""

    def __init__(self, home: Path, *, writable: bool) -> None:
        """Open ``home``; raises RefusedInput where there is no ledger."""
        self.home = home
        self._engine: Embedded | None = None
        if writable:
            self._engine = Embedded.open(home, RULES, interval_ms=None)
            self.ledger = self._engine.ledger
        else:
            self.ledger = Ledger.open(locate(home), RULES, writable=False)

    def __enter__(self) -> "SpectrumHome":
        return self

    def __exit__(self, *_: object) -> None:
        if self._engine is not None:
            self._engine.close()
        else:
            self.ledger.close()

    def inquire(self, question: Question) -> Inquired:
        """Answer a question from the present height."""
        with self.ledger.view() as view:
            recorder = RecordingReader(view.snapshot)
            found = answer(State(recorder), question)
            header = view.header(view.height).header
            return Inquired(found, header.height, header.app_hash, recorder.read)

    def key(self, name: str) -> KeyPair:
        """Return the key of a member that is kept here."""
        path = self.home / "keys" / f"{name}.key"
        if "/" in name or not path.is_file():
            here = sorted(one.stem for one in (self.home / "keys").glob("*.key"))
            raise RefusedInput(f"no key of {name!r} in {self.home / 'keys'}; there are {', '.join(here[:8]) or 'none'}")
        return load_key(path)

    def now(self) -> int:
        """Return market time."""
        with self.ledger.view() as view:
            return market_time(view.state)

    def advance(self, to: int) -> None:
        """Move market time forward to ``to``; nothing happens where it is there already."""
        if to > self.now():
            self._seal(node_key_at(self.home), AdvanceClock(to))

    def submit(self, name: str, *calls: Call, at: int | None = None) -> Receipt:
        """Sign calls with a member's key and seal them; raises RefusedInput with the ledger's reason.

        ``at`` moves market time there first; a time that has passed is refused.
        """
        key = self.key(name)
        if at is not None:
            now = self.now()
            if at < now:
                raise RefusedInput(f"market time is {timestamp(now)} already; it only runs forward")
            self.advance(at)
        return self._seal(key, *calls)

    def wish(
        self,
        idle: int,
        latitude: float,
        longitude: float,
        height_m: float,
        eirp: int,
        start: int,
        end: int,
        *,
        low: int | None = None,
        high: int | None = None,
        most_price: int | None = None,
    ) -> RequestLease:
        """Build the request for an idle band, or a part of it, in the cell of a place."""
        with self.ledger.view() as view:
            offer = view.state.get(IDLE, idle) if 0 <= idle < 2**63 else None
            if offer is None:
                raise RefusedInput(f"no idle band {idle}")
            rules = view.state.get(CLASSES, offer.band)
        if rules is None:
            raise RefusedInput(f"idle band {idle} has no class")
        height = next((i for i, top in enumerate(rules.heights_m) if 0 <= height_m <= top), None)
        if height is None:
            raise RefusedInput(f"an antenna at {height_m} m is outside 0..{rules.heights_m[-1]} m of {rules.name}")
        wish = RequestLease(
            idle,
            offer.low if low is None else low,
            offer.high if high is None else high,
            cells_under(latitude, longitude, 0.0, rules.resolution),
            start,
            end,
            eirp,
            height,
            2**62 if most_price is None else most_price,
        )
        try:
            return msgspec.convert(msgspec.to_builtins(wish), RequestLease)
        except msgspec.ValidationError as error:
            raise RefusedInput(f"no such lease can be asked for: {error}") from None

    def last_number(self, what: str) -> int:
        """Return the last number given to a kind of record."""
        with self.ledger.view() as view:
            last = view.state.get(NUMBERS, what)
        return 0 if last is None else last.last

    def lease(self, number: int) -> Lease:
        """Return a lease; raises RefusedInput where there is none."""
        with self.ledger.view() as view:
            found = view.state.get(LEASES, number)
        if found is None:
            raise RefusedInput(f"no lease {number}")
        return found

    def history(self, member: str | None = None) -> dict[str, Any]:
        """Return every use by member, class and cell, denials in force, and Jain's index over members."""
        with self.ledger.view() as view:
            now = market_time(view.state)
            classes = {number: rules.name for number, rules in view.state.scan(CLASSES)}
            totals: dict[str, int] = {}
            uses = []
            for (who, band, cell), kept in view.state.scan(HISTORY):
                name = self.name_of(view, who)
                used = sum(end - start for start, end in kept.used)
                totals[name] = totals.get(name, 0) + used
                denial = view.state.get(DENIALS, (who, band, cell))
                denied = denial is not None and now < denial.until
                uses.append(
                    {
                        "member": name,
                        "band_class": classes.get(band, str(band)),
                        "cell": f"{cell:x}",
                        "used_ms": used,
                        "grants": len(kept.grants),
                        "denied_until": timestamp(denial.until) if denial is not None and denied else None,
                        "rule": denial.rule if denial is not None and denied else None,
                    }
                )
        if member is not None:
            if member not in totals:
                raise RefusedInput(f"no use by {member!r} is on record")
            uses = [use for use in uses if use["member"] == member]
        return {"uses": uses, "members": len(totals), "jain_ppm": jain_ppm(totals.values()), "at": timestamp(now)}

    def incidents(self) -> list[dict[str, Any]]:
        """Return every incident with its claims."""
        with self.ledger.view() as view:
            return [
                {
                    "incident": number,
                    "cell": f"{found.cell:x}",
                    "low_hz": found.low,
                    "high_hz": found.high,
                    "start": timestamp(found.start),
                    "end": timestamp(found.end),
                    "belief_ppm": found.belief_ppm,
                    "reports": found.reports,
                    "claims": [
                        {"lease": claim.lease, "lessee": self.name_of(view, claim.lessee)} for claim in found.claims
                    ],
                }
                for number, found in view.state.scan(INCIDENTS)
            ]

    def name_of(self, view: View, wallet: bytes) -> str:
        """Return a member's name, or its wallet in hex."""
        member = view.state.get(MEMBERS, wallet)
        return member.name if member is not None and member.name else wallet.hex()

    def _seal(self, key: KeyPair, *calls: Call) -> Receipt:
        engine = self._engine
        if engine is None:
            raise RefusedInput(f"{self.home} was opened for reading only")
        with self.ledger.view() as view:
            used = view.state.get(NONCES, key.public)
            head = view.header(view.height).header
        nonce = 1 if used is None else used.number + 1
        signed = sign(key, self.ledger.genesis.chain, nonce, head.height + 100, calls)
        accepted = engine.submit(signed.wire)
        if isinstance(accepted, Refusal):
            raise RefusedInput(f"refused: {accepted.code} {accepted.info}".strip())
        sealed = engine.seal(head.time_ms + 1000)
        receipt = sealed.receipts[0]
        if not receipt.ok:
            raise RefusedInput(f"refused: {receipt.code} {receipt.info}".strip())
        return receipt
