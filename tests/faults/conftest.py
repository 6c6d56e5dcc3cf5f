"""A consortium of real processes for tests that hurt it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults_consortium import Consortium, engines_missing


@pytest.fixture
def consortium(tmp_path: Path, worker_id: str) -> Iterator[Consortium]:
    """Four CometBFT validators, running; whatever happens, none of their processes is left."""
    missing = engines_missing()
    if missing:
        pytest.skip(missing)
    net = Consortium(tmp_path / "net", offset=int(worker_id.removeprefix("gw") or 0) if worker_id != "master" else 0)
    try:
        net.start()
        yield net
    finally:
        net.stop()
