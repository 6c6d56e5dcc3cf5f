"""Keys from one seed, backups on paper, sealed texts, account pools, and the bank's checks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.agents.aggregator import apply_for, issue_tags, links, one_each, openings, register_wallets, tag_for
from gridpool.agents.bank import LoanRequest, OwnWallet, check_request, make_offer, open_request, seal_request
from gridpool.agents.meter import parse_time, read_readings, time_text
from gridpool.agents.wallet_keys import (
    WalletKeys,
    derive_seed,
    load_wallet,
    read_backup,
    save_wallet,
    write_backup,
)
from gridpool.agents.wallet_sealing import box_key, box_key_of, open_sealed, seal_for
from gridpool.contracts import coins, credit, members
from gridpool.contracts.coins import Payment
from gridpool.contracts.members import (
    FOREVER,
    Admit,
    BanMember,
    FoundingMember,
    MemberParameters,
    NewMember,
    NewSeat,
    Role,
    propose,
)
from gridpool.errors import RefusedInput
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import Rehearsal
from gridpool.ledger.rules import Rules
from gridpool.ledger.types import encode

# SLIP-0010, test vector 1 for Ed25519: path -> (private key, public key)
SEED = bytes.fromhex("000102030405060708090a0b0c0d0e0f")
VECTORS = {
    (): (
        "2b4be7f19ee27bbf30c667b642d5f4aa69fd169872f8fc3059c08ebae2eb19e7",
        "a4b2856bfec510abab89753fac1ac0e1112364e7d250545963f135f2a33188ed",
    ),
    (0,): (
        "68e0fe46dfb67e368c75379acec591dad19df3cde26e63b93a8e704f1dade7a3",
        "8c8a13df77a28f3445213a0f432fde644acaa215fc72dcdf300d5efaa85d350c",
    ),
    (0, 1): (
        "b1d0bad404bf35da785a64ca1ac54b2617211d2777696fbffaf208f746ae84f2",
        "1932a5270f335bed617d5b935c80aedb1a35bd9fc1e31acafd5372c30f5c1187",
    ),
    (0, 1, 2): (
        "92a5b23c0b8a99e37d07df3fb9966917f5d06e02ddbd909c7e184371463e9fc9",
        "ae98736566d30ed0e9d2f4486a64bc95740d89c7db33f52121f8ea8f76ff0fc1",
    ),
    (0, 1, 2, 2): (
        "30d1dc7e5fc04c31219ab25a27ae00b50f6fd66622f6e9c913253d6511d1e662",
        "8abae2d66361c879b900d204ad2cc4984fa2aa344dd7ddc46007329ac76c429c",
    ),
}


@pytest.mark.parametrize("path", VECTORS)
def test_derivation_agrees_with_the_published_vectors(path: tuple[int, ...]) -> None:
    private = derive_seed(SEED, path)
    assert (private.hex(), KeyPair(private).public.hex()) == VECTORS[path]


@given(st.binary(min_size=32, max_size=32))
@settings(deadline=None)
def test_backup_comes_back_also_from_a_careless_hand(seed: bytes) -> None:
    rows = write_backup(seed)
    assert read_backup("\n".join(rows)) == seed
    careless = "\n\n".join(row.lower().replace("0", "o").replace("1", "l", 0) for row in rows)
    labels = [f"{n + 1} {row.split(' ', 1)[1]}" for n, row in enumerate(careless.split("\n\n"))]
    assert read_backup("\n".join(labels)) == seed


@given(st.binary(min_size=32, max_size=32), st.integers(0, 6), st.integers(2, 9), st.sampled_from("ABCDEFGHJK23456789"))
@settings(deadline=None)
def test_miscopied_row_is_named(seed: bytes, row: int, place: int, sign: str) -> None:
    rows = write_backup(seed)
    place += place >= 6
    if rows[row][place] == sign:
        return
    rows[row] = rows[row][:place] + sign + rows[row][place + 1 :]
    with pytest.raises(RefusedInput, match=f"row {row + 1} |together"):
        read_backup("\n".join(rows))


def test_bad_backups_and_wallet_files_are_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rows = write_backup(bytes(32))
    for text in ("", "\n".join(rows[:-1]), "\n".join(reversed(rows)), "\n".join(["1 ____ ____ __", *rows[1:]])):
        with pytest.raises(RefusedInput):
            read_backup(text)
    keys = WalletKeys.generate()
    path = tmp_path / "ann.wallet"
    save_wallet(path, keys)
    assert load_wallet(path).certificate.public == keys.certificate.public
    with pytest.raises(RefusedInput, match="exists"):
        save_wallet(path, keys)
    path.chmod(0o644)
    with pytest.raises(RefusedInput, match="chmod 600"):
        load_wallet(path)
    other = tmp_path / "x"
    other.write_text("hello")
    other.chmod(0o600)
    with pytest.raises(RefusedInput, match="no wallet file"):
        load_wallet(other)
    with pytest.raises(RefusedInput, match="make one with"):
        load_wallet(tmp_path / "none")


def test_each_named_reader_opens_alone_and_nobody_else() -> None:
    ann, bob, eve = (WalletKeys.generate().certificate for _ in range(3))
    sealed = seal_for((box_key(ann.public), box_key(bob.public)), b"text")
    assert open_sealed(sealed, ann) == open_sealed(sealed, bob) == b"text"
    with pytest.raises(RefusedInput, match="not sealed for"):
        open_sealed(sealed, eve)
    for altered in (sealed[:-1], b"", sealed[:40] + bytes([sealed[40] ^ 1]) + sealed[41:]):
        with pytest.raises(RefusedInput):
            open_sealed(altered, ann)


HUB, BANK, COUNCIL, AUDITOR = (WalletKeys(bytes([i]) * 32) for i in range(1, 5))
NOW = 1_782_000_000_000


def consortium(names: int = 3, wallets: int = 2) -> tuple[Rehearsal, list[WalletKeys]]:
    parameters = MemberParameters(
        seats=(NewSeat(COUNCIL.certificate.public, "council"),),
        audit_key=box_key_of(AUDITOR.certificate)[0],
        founders=(
            FoundingMember(HUB.certificate.public, "Hub", (Role.AGGREGATOR,)),
            FoundingMember(BANK.certificate.public, "Bank", (Role.BANK,)),
        ),
    )
    genesis = Genesis(chain="agents", time_ms=NOW, parameters=(("members", encode(parameters)),))
    chain = Rehearsal(Rules([members.members, coins.coins, credit.credit]), genesis)
    people = [WalletKeys(bytes([100 + i]) * 32) for i in range(names)]
    hub = HUB.certificate.public
    applications = [apply_for(keys, f"Person {i}", hub, parameters, count=wallets) for i, keys in enumerate(people)]
    admitted = Admit(tuple(NewMember(a.key, "", (Role.PROSUMER,), hub, sealed=a.sealed_identity) for a in applications))
    chain.expect(COUNCIL.certificate, propose(admitted))
    for call in register_wallets(applications, valid_until=FOREVER):
        chain.expect(HUB.certificate, call)
    return chain, people


def test_pool_is_readable_to_aggregator_and_auditor_alone() -> None:
    chain, people = consortium()
    for reader in (HUB, AUDITOR):
        pool = links(chain.state, reader.certificate)
        assert {wallet: link.member for wallet, link in pool.items()} == {
            keys.wallet(n).public: keys.certificate.public for keys in people for n in range(2)
        }
    with pytest.raises(RefusedInput, match="not sealed for"):
        links(chain.state, BANK.certificate)
    identity = chain.get(members.MEMBERS, people[1].certificate.public)
    assert identity is not None
    assert open_sealed(identity.sealed, AUDITOR.certificate).rstrip(b"\0") == b"Person 1"


def test_auditors_openings_bind_every_wallet_of_the_banned() -> None:
    chain, people = consortium()
    banned = people[0]
    opened = openings(chain.state, AUDITOR.certificate, banned.certificate.public)
    ban = BanMember(banned.certificate.public, NOW + 10**9, "council", "unpaid", opened)
    chain.expect(COUNCIL.certificate, propose(ban))
    for number in range(2):
        receipt = chain.submit(banned.wallet(number), coins.Transfer(HUB.certificate.public, 1))
        assert receipt.code == "banned"
    assert chain.submit(people[1].wallet(0), coins.Transfer(HUB.certificate.public, 1)).code == "not_enough_coins"


def test_tags_are_equal_for_one_member_in_one_interval_only() -> None:
    chain, people = consortium()
    pool = links(chain.state, HUB.certificate)
    first = issue_tags(HUB, pool, 900_000, list(pool))
    by_wallet = dict(first.tags)
    for keys in people:
        assert by_wallet[keys.wallet(0).public] == by_wallet[keys.wallet(1).public]
    assert len(set(by_wallet.values())) == len(people)
    later = dict(issue_tags(HUB, pool, 1_800_000, list(pool)).tags)
    assert not set(later.values()) & set(by_wallet.values())
    member = people[0].certificate.public
    assert by_wallet[people[0].wallet(0).public] == tag_for(HUB.secret("pool"), member, 900_000)
    each = one_each(pool)
    assert len(each) == len({pool[wallet].member for wallet in each}) == len(people)
    with pytest.raises(RefusedInput, match="not of this pool"):
        issue_tags(HUB, pool, 0, [bytes(32)])


def request_of(keys: WalletKeys, *, wallets: int = 2) -> LoanRequest:
    own = tuple(OwnWallet(keys.wallet(n).public, keys.salt(n)) for n in range(wallets))
    return LoanRequest(keys.certificate.public, own, 1_000, 200_000, bytes(16))


def test_bank_checks_all_wallets_of_the_borrower_and_attests() -> None:
    chain, people = consortium()
    ann, bank = people[0], BANK.certificate
    sealed = seal_request(bank.public, request_of(ann))
    borrower = ann.wallet(0).public
    with pytest.raises(RefusedInput, match="wealth 0, income in the window False"):
        make_offer(chain.state, borrower, sealed.sealed, bank, NOW)
    mint = coins.Mint((Payment(ann.wallet(1).public, 5), Payment(bank.public, 10**9)), "start")
    chain.expect(COUNCIL.certificate, propose(mint))
    history = credit.CreditHistory((credit.History(ann.wallet(1).public, 7, 1, 0, NOW - 3_600_000),))
    chain.expect(COUNCIL.certificate, propose(history))
    checks = check_request(chain.state, open_request(chain.state, sealed.sealed, bank), NOW)
    assert (checks.wealth, checks.income, checks.credit_value, checks.passed) == (5, True, 7, True)
    assert not check_request(chain.state, open_request(chain.state, sealed.sealed, bank), NOW + 2 * 86_400_000).passed
    chain.expect(ann.wallet(0), sealed)
    offer = make_offer(chain.state, borrower, sealed.sealed, bank, NOW)
    chain.expect(bank, offer)
    chain.expect(ann.wallet(0), credit.AcceptLoan(offer.loan))
    assert credit.token_free(chain.state, offer.loan) > 0


def test_bank_is_not_shown_somebody_elses_wealth() -> None:
    chain, people = consortium()
    ann, bob = people[:2]
    stolen = LoanRequest(
        ann.certificate.public, (OwnWallet(bob.wallet(0).public, ann.salt(0)),), 1_000, 200_000, bytes(16)
    )
    sealed = seal_request(BANK.certificate.public, stolen).sealed
    with pytest.raises(RefusedInput, match="not the borrower's"):
        open_request(chain.state, sealed, BANK.certificate)
    with pytest.raises(RefusedInput, match="not sealed for"):
        open_request(chain.state, sealed, HUB.certificate)


def test_readings_file_is_taken_whole_or_refused_whole(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "readings.csv"
    path.write_text("interval,import_wh,export_wh,quality\n2026-06-21T10:15:00Z,120,0,measured\n900000,0,7,corrected\n")
    readings = read_readings(path)
    assert [(time_text(r.interval), r.import_wh, r.export_wh, r.quality) for r in readings] == [
        ("2026-06-21T10:15:00Z", 120, 0, "measured"),
        ("1970-01-01T00:15:00Z", 0, 7, "corrected"),
    ]
    for text, wrong in (
        ("interval,import_wh\n1,2\n", "no column export_wh"),
        ("interval,import_wh,export_wh\n", "holds no reading"),
        ("interval,import_wh,export_wh\n0,-1,0\n", "line 2: import_wh"),
        ("interval,import_wh,export_wh\n0,1.5,0\n", "line 2: import_wh"),
        ("interval,import_wh,export_wh\nnoon,1,0\n", "line 2: 'noon'"),
        ("interval,import_wh,export_wh,quality\n0,1,0,substituted\n", "quality"),
        ("interval,import_wh,export_wh,extra\n0,1,0,0\n", "column 'extra'"),
        ("interval,import_wh,export_wh\n0,1,0,9\n", "more fields"),
    ):
        path.write_text(text)
        with pytest.raises(RefusedInput, match=wrong):
            read_readings(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RefusedInput):
        read_readings(path)
    with pytest.raises(RefusedInput, match="before 1970"):
        parse_time("1969-01-01T00:00:00Z")
