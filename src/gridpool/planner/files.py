"""Files a plan leaves: whole or not at all."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["write_json", "write_text"]


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result as indented JSON."""
    _write(path, msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8."""
    _write(path, text.encode())


def _write(path: Path, data: bytes) -> None:
    unfinished = path.with_name(path.name + ".part")
    try:
        unfinished.write_bytes(data)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
