"""The package's face: what it exports exists, loads late, and every command tells how to use it."""

import subprocess
import sys

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
