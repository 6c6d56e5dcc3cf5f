"""What a real engine asks of the application, through a kill and a restart, is a sentence of ABCI's grammar."""

import re
import signal
import time
from pathlib import Path

import pytest
from faults_consortium import Consortium, engines_missing

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]

WORDS = {
    "start": "S",
    "info": "I",
    "init_chain": "G",
    "prepare_proposal": "p",
    "process_proposal": "q",
    "finalize_block": "F",
    "commit": "C",
}
# After a start: a handshake (with genesis on an empty ledger), then heights. A height is any number of proposals, then
# the decided block and its commit. A kill may end a sentence anywhere; the next start begins a new one. A block may be
# finalized again after a crash between the two.
SENTENCE = re.compile(r"^S(I+G?I*)?([pq]*FC)*[pq]*F?$")


def test_recorded_requests_are_sentences_of_the_grammar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = engines_missing()
    if missing:
        pytest.skip(missing)
    traces = tmp_path / "traces"
    traces.mkdir()
    monkeypatch.setenv("GRIDPOOL_ABCI_TRACE", str(traces))
    net = Consortium(tmp_path / "net", offset=7)
    try:
        net.start()
        net.await_blocks(3, within_s=30)
        net.send(1, "application", signal.SIGKILL)
        time.sleep(2)
        net.await_blocks(3, within_s=40)
    finally:
        net.stop()
    files = sorted(traces.glob("*.trace"))
    assert len(files) == 4
    for file in files:
        words = "".join(WORDS.get(line, "") for line in file.read_text().split())
        sentences = ["S" + rest for rest in words.split("S")[1:]]
        assert len(sentences) == (2 if file.stem == "node1" else 1)
        for sentence in sentences:
            assert SENTENCE.match(sentence), sentence
            assert "FC" in sentence
        assert sentences[0].startswith(("SIG", "SIIG")), sentences[0][:10]
