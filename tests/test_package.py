"""The package's face: what it exports exists, loads late, and every command tells how to use it."""

import subprocess
import sys
from pathlib import Path

import pytest

import gridpool
from gridpool.cli import main
from gridpool.cli.app import COMMANDS


def test_every_exported_name_exists() -> None:
    for name in gridpool.__all__:
        assert getattr(gridpool, name) is not None
    with pytest.raises(AttributeError):
        _ = gridpool.nothing_of_the_kind


def test_import_is_light() -> None:
    heavy = "('numpy', 'lmdb', 'scipy', 'matplotlib')"
    code = f"import sys, gridpool, gridpool.ledger.light; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([command, "--help"])
    text = capsys.readouterr().out
    assert "Usage: gridpool" in text
    if not COMMANDS[command][0].endswith(":app"):
        assert "Example:" in text


@pytest.mark.parametrize("arguments", [["nonsense"], ["day", "--nonsense"], ["lab", "latency", "--arrival", "x"]])
def test_wrong_usage_ends_with_two(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out.strip() == gridpool.__version__


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "--feeder", "ieee13", "--instance", "FILE"],
        ["slice", "arbitrate", "FILE", "FILE", "--objective", "cost", "--payment", "offer"],
        ["slice", "import-gst", "FILE"],
        ["spectrum", "load", "FILE", "--out", "OUT"],
        ["spectrum", "auction", "FILE", "--rule", "vcg"],
        ["settle", "net", "FILE"],
        ["market", "clear", "FILE", "--rule", "uniform"],
        ["ledger", "check", "FILE", "--trust", "FILE"],
        ["ledger", "import", "FILE", "--out", "OUT"],
        ["ledger", "restore", "FILE", "--out", "OUT"],
        ["day", "--scenario", "FILE", "--out", "OUT"],
        ["study", "run", "li2018", "--params", "FILE", "--out", "OUT"],
        ["network", "found", "FILE", "--keys", "FILE", "--home", "OUT", "--chain", "c", "--time", "2026-01-01T00:00"],
    ],
)
@pytest.mark.parametrize("content", [b'{"a":"\xff\xfe"}', b"\x81\xa1\xff\xfe"])
def test_files_that_are_not_text_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], content: bytes
) -> None:
    file, out = tmp_path / "file", tmp_path / "out"
    file.write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        main([{"FILE": str(file), "OUT": str(out)}.get(word, word) for word in arguments])
    assert stop.value.code in (1, 3)
    captured = capsys.readouterr()
    assert len(captured.err.strip().splitlines()) == 1
