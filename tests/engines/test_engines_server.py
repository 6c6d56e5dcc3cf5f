"""The socket server: answers in the order of the questions, checks together, and an end where the application fails."""

import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gridpool.engines.abci import abci_pb2 as pb
from gridpool.engines.abci.framing import Deframer, frame
from gridpool.engines.abci.messages import CHECKED, checked
from gridpool.engines.abci.server import Server

BAD, BUG = b"bad", b"bug"


class Double:
    """An application that tells what it was asked."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def answer(self, request: pb.Request) -> pb.Response:
        assert request.WhichOneof("value") == "commit"
        return pb.Response(commit=pb.ResponseCommit(retain_height=7))

    def check(self, wires: Sequence[bytes]) -> list[bytes]:
        self.batches.append(len(wires))
        if BUG in wires:
            raise KeyError("bug")
        return [checked(1, "bad", "") if wire == BAD else CHECKED for wire in wires]


@pytest.fixture
def double() -> Double:
    return Double()


@pytest.fixture
def server(double: Double) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        made = Server(Path(folder) / "s", double.answer, double.check)
        yield made
        made.stop()


def ask(server: Server, requests: list[pb.Request]) -> list[pb.Response]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect(str(server.path))
        client.sendall(b"".join(frame(request.SerializeToString()) for request in requests))
        deframer, answers = Deframer(), []
        while len(answers) < len(requests):
            data = client.recv(1 << 16)
            if not data:
                break
            answers += [pb.Response.FromString(message) for message in deframer.feed(data)]
        return answers


def check_of(wire: bytes, kind: "pb.CheckTxType" = pb.NEW) -> pb.Request:
    return pb.Request(check_tx=pb.RequestCheckTx(tx=wire, type=kind))


def test_answers_come_in_order_and_checks_together(server: Server, double: Double) -> None:
    flush, commit = pb.Request(flush=pb.RequestFlush()), pb.Request(commit=pb.RequestCommit())
    empty = pb.Request(check_tx=pb.RequestCheckTx())  # left to the compiled protocol
    requests = [
        check_of(b"a" * 300),
        check_of(BAD),
        check_of(b"c", pb.RECHECK),
        flush,
        check_of(b"d"),
        commit,
        empty,
        pb.Request(echo=pb.RequestEcho(message="hello")),
        pb.Request(),
        flush,
    ]
    answers = ask(server, requests)
    kinds = [answer.WhichOneof("value") for answer in answers]
    assert kinds == [*["check_tx"] * 3, "flush", "check_tx", "commit", "check_tx", "echo", "exception", "flush"]
    assert [answers[i].check_tx.code for i in (0, 1, 2, 4, 6)] == [0, 1, 0, 0, 0]
    assert answers[5].commit.retain_height == 7
    assert answers[7].echo.message == "hello"
    assert sum(double.batches) == 5
    assert server.failure is None


def test_application_that_fails_is_heard_and_ends(server: Server) -> None:
    answers = ask(server, [check_of(b"a"), check_of(BUG), pb.Request(flush=pb.RequestFlush())])
    assert answers[-1].WhichOneof("value") in {"exception", "flush"}
    assert any("bug" in answer.exception.error for answer in answers)
    assert server.wait(10)
    assert isinstance(server.failure, KeyError)
