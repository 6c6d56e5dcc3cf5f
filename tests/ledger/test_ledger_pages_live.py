"""The heads of a store are read while its node goes on writing."""

import os
from pathlib import Path

import lmdb
import pytest

from gridpool.ledger import pages


def test_store_that_grows_between_the_reads_of_its_heads_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = lmdb.open(str(tmp_path), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        transaction.put(b"first", b"x" * 10_000)
    read, count = os.pread, 0

    def growing(file: int, size: int, at: int) -> bytes:
        nonlocal count
        count += 1
        for _ in range(2):  # one for each head
            with environment.begin(write=True) as transaction:
                transaction.put(b"%d" % count, b"x" * 50_000)
        return read(file, size, at)

    file = os.open(tmp_path / "data.mdb", os.O_RDONLY)
    monkeypatch.setattr(os, "pread", growing)
    try:
        _, metas = pages.read_metas(file)
    finally:
        os.close(file)
        environment.close()
    assert count == 3
    assert len(metas) == 2
