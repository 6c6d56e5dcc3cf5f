"""What every study has in common: its claims with verdicts, its parameters and the files it leaves."""

import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import msgspec

from gridpool.errors import RefusedInput

__all__ = ["STUDIES", "Claim", "Study", "StudyResult", "Verdict", "run_study"]

Verdict = Literal["reproduced", "reproduced under stated assumptions", "not reproduced"]


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One claim of a paper beside our figure for it; ``paper``, ``ours`` and ``interval`` share one unit."""

    figure: str
    claim: str
    paper: float | None
    ours: float | None
    interval: tuple[float, float] | None = None
    verdict: Verdict
    assumptions: str = ""


class StudyResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a study; ``files`` are relative to its output folder."""

    study: str
    claims: list[Claim]
    files: list[str]
    seed: int
    params: dict[str, Any] = {}

    def as_dict(self) -> dict[str, Any]:
        """Give the result as plain JSON-ready data."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        return data


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """A study: its parameters as a struct with defaults (which validates ``--params``), and its run.

    ``run(params, out, smoke, scheduler)`` writes its files into ``out`` (which exists) and returns the result.
    """

    params: type[msgspec.Struct]
    run: Callable[[Any, Path, bool, str | None], StudyResult]


STUDIES: dict[str, str] = {
    "farhadi2022": "gridpool.studies.farhadi2022",
    "kouvakis2024": "gridpool.studies.kouvakis2024",
    "li2018": "gridpool.studies.li2018",
    "xu2020": "gridpool.studies.xu2020",
}
"""Study name -> module that holds its ``STUDY``; loaded only when it runs."""


def run_study(
    name: str, *, out: Path, params: Path | None = None, smoke: bool = False, scheduler: str | None = None
) -> StudyResult:
    """Run the study ``name`` into the folder ``out`` and write its ``claims.json`` there.

    Raises RefusedInput for an unknown study or a parameter file that does not fit.
    """
    if name not in STUDIES:
        raise RefusedInput(f"no study {name!r}; choose one of {', '.join(sorted(STUDIES))}")
    study: Study = import_module(STUDIES[name]).STUDY
    chosen = _read_params(study.params, params)
    out.mkdir(parents=True, exist_ok=True)
    result = study.run(chosen, out, smoke, scheduler)
    (out / "claims.json").write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    return result


def _read_params(kind: type[msgspec.Struct], path: Path | None) -> msgspec.Struct:
    if path is None:
        return kind()
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), kind)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RefusedInput(f"{path} is not a TOML file: {error}") from error
    except msgspec.ValidationError as error:
        known = ", ".join(kind.__struct_fields__)
        raise RefusedInput(f"{path}: {error}; the keys are {known}") from error
