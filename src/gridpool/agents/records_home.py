"""Where records are kept: a home with a ledger and a member's key, made on the spot where there is none."""

import time
from pathlib import Path

from gridpool.agents.wallet_founding import found_consortium
from gridpool.agents.wallet_keys import WalletKeys, load_wallet, save_wallet
from gridpool.contracts.members import FoundingMember, Role
from gridpool.errors import RefusedInput

__all__ = ["MEMBER_FILE", "found_where_none", "member_keys"]

MEMBER_FILE = "member.wallet"


def found_where_none(home: Path) -> bool:
    """Make a key and a ledger with this one member in ``home`` unless it holds a ledger; tells whether it made one.

    The member sits on the council alone, stores records and anchors readings.
    """
    if (home / "genesis").exists() or (home / "ledger").exists():
        return False
    if home.exists() and not home.is_dir():
        raise RefusedInput(f"{home} is no folder; give one for the ledger")
    home.mkdir(parents=True, exist_ok=True)
    if not (home / MEMBER_FILE).exists():
        save_wallet(home / MEMBER_FILE, WalletKeys.generate())
    key = load_wallet(home / MEMBER_FILE).certificate.public
    found_consortium(
        home,
        chain=f"records-{key.hex()[:16]}",
        seats=(key,),
        threshold=1,
        founders=(FoundingMember(key, "owner", (Role.AGGREGATOR, Role.PROSUMER)),),
        clock=None,
        start_ms=time.time_ns() // 1_000_000,
    )
    return True


def member_keys(home: Path, wallet: Path | None) -> WalletKeys:
    """Read the keys of who acts: a wallet file, by default the one that was made with the home."""
    if wallet is not None:
        return load_wallet(wallet)
    if not (home / MEMBER_FILE).exists():
        raise RefusedInput(f"{home} has no {MEMBER_FILE}; say who acts with --wallet FILE")
    return load_wallet(home / MEMBER_FILE)
