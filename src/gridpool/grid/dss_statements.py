"""OpenDSS scripts as data: which statements of a master file are facts of a feeder, and which are refused.

A master file is a program: it may redirect to other files, write reports, run shared libraries. Only statements that
describe a circuit pass; reports and controls are left out; anything else refuses the file.
"""

import re
from pathlib import Path

import msgspec

from gridpool.errors import RefusedInput

__all__ = ["Script", "Statement", "read_script"]

MAX_BYTES = 32 << 20
MAX_FILES = 200
MAX_DEPTH = 8
MAX_STATEMENTS = 200_000
MAX_LINE = 100_000

CIRCUIT_CLASSES = frozenset({
    "circuit", "vsource", "linecode", "line", "load", "transformer", "regcontrol", "capacitor", "generator",
    "pvsystem", "xfmrcode", "wiredata", "cndata", "tsdata", "linespacing", "linegeometry",
})  # fmt: skip
"""Classes whose objects are facts of a feeder."""

IGNORED_CLASSES = frozenset({
    "loadshape", "tshape", "priceshape", "growthshape", "xycurve", "spectrum", "tcc_curve", "monitor",
    "energymeter", "sensor", "capcontrol", "swtcontrol", "fuse", "relay", "recloser", "invcontrol",
    "expcontrol",
})  # fmt: skip
"""Classes that say how a feeder is simulated, protected or measured, and nothing about the feeder itself."""

IGNORED_COMMANDS = frozenset({
    "clear", "clearall", "solve", "show", "plot", "export", "visualize", "help", "get", "?", "say", "summary",
    "currents", "voltages", "powers", "losses", "interpolate", "reset", "sample", "save", "about",
    "comparecases", "formedit", "fileedit", "uuids", "alignfile", "init", "estimate", "allocateloads",
    "makebuslist", "rebuild", "variable", "nodediff", "cvrtloadshapes", "setkvbase",
})  # fmt: skip
"""Commands that report, simulate or draw; they are left out."""

_PROPERTY_REFUSED = re.compile(
    r"\b(usermodel|userdata|dynadll|dynadata|shaftmodel|shaftdata|dynamiceq|\w*file)\s*=", re.IGNORECASE
)
_SHAPES = re.compile(r"\b(daily|yearly|duty|growth|cvrcurve|spectrum|tdaily|tyearly|tduty)\s*=\s*\S+", re.IGNORECASE)
_OBJECT = re.compile(r"^(?:object\s*=\s*)?[\"']?([A-Za-z_0-9]+)\.([^\s\"'=]+)", re.IGNORECASE)
_EDIT = re.compile(r"^([A-Za-z_0-9]+)\.([^\s=]+)\.([A-Za-z_0-9%]+)\s*=", re.IGNORECASE)


class Statement(msgspec.Struct, frozen=True):
    """One statement for the engine, and where it stands."""

    where: str
    text: str


class Script(msgspec.Struct):
    """The statements of a master file and the files it redirects to, with the drawing positions they name."""

    statements: list[Statement] = []
    coordinates: dict[str, tuple[float, float]] = {}


def read_script(master: Path) -> Script:
    """Read the master file and everything it redirects to.

    Raises RefusedInput for a file outside the master's folder, a command or class that no feeder needs, or a file
    that is no text.
    """
    script = Script(statements=[], coordinates={})
    try:
        root = master.resolve(strict=True)
    except OSError as error:
        raise RefusedInput(f"cannot read {master}: {error.strerror}") from error
    budget = [MAX_BYTES, MAX_FILES]
    _read_file(root, root.parent, script, budget, depth=0)
    if not any(s.text.lower().startswith("new circuit.") for s in script.statements):
        raise RefusedInput(f"{master.name}: no circuit and so no source; a master file begins with 'New Circuit.NAME'")
    return script


def _text_of(path: Path, folder: Path, budget: list[int], where: str) -> str:
    if not path.is_relative_to(folder):
        raise RefusedInput(f"{where}: {path} lies outside the folder of the master file; copy it there")
    budget[1] -= 1
    try:
        if not path.is_file():
            raise RefusedInput(f"{where}: no file {path}")
        budget[0] -= path.stat().st_size
        if budget[0] < 0 or budget[1] < 0:
            raise RefusedInput(f"{where}: the files of the feeder exceed {MAX_BYTES >> 20} MiB or {MAX_FILES} files")
        content = path.read_bytes()
    except OSError as error:
        raise RefusedInput(f"{where}: cannot read {path}: {error.strerror}") from error
    if b"\0" in content:
        raise RefusedInput(f"{path} is not a text file")
    return content.decode("utf-8", errors="replace")


def _read_file(path: Path, folder: Path, script: Script, budget: list[int], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise RefusedInput(f"{path.name}: redirects nest deeper than {MAX_DEPTH}; does a file redirect to itself?")
    text = _text_of(path, folder, budget, path.name)
    kept = False  # whether a continuation line belongs to a statement that was kept
    in_comment = False
    for number, raw in enumerate(text.splitlines(), start=1):
        where = f"{path.name}:{number}"
        if len(raw) > MAX_LINE:
            raise RefusedInput(f"{where}: the line is longer than {MAX_LINE} characters")
        line = raw.strip()
        if in_comment or line.startswith("/*"):
            in_comment = "*/" not in line
            continue
        line = re.split(r"!|//", line, maxsplit=1)[0].strip()
        if not line:
            continue
        if _PROPERTY_REFUSED.search(line):
            raise RefusedInput(f"{where}: files and libraries behind a property are not read; write the values out")
        if line.startswith("~") or re.match(r"(more|m)\b", line, re.IGNORECASE):
            if kept:
                _keep(script, where, line)
            continue
        kept = _statement(line, where, path, folder, script, budget, depth)


def _statement(line: str, where: str, path: Path, folder: Path, script: Script, budget: list[int], depth: int) -> bool:
    verb, _, rest = line.partition(" ")
    verb, rest = verb.lower(), rest.strip()
    if "\t" in verb:
        verb, _, more = verb.partition("\t")
        rest = f"{more} {rest}"
    if verb.startswith("command="):
        raise RefusedInput(f"{where}: write the command itself, without 'command='")
    if verb in {"new", "edit"}:
        return _object(verb, rest, where, script)
    edit = _EDIT.match(line)
    if edit:
        kind = edit.group(1).lower()
        if kind in CIRCUIT_CLASSES:
            _keep(script, where, line)
            return True
        return False
    if verb in {"redirect", "compile"}:
        target = _unquote(rest).replace("\\", "/")
        _read_file((path.parent / target).resolve(), folder, script, budget, depth + 1)
        return False
    if verb == "buscoords":
        _read_coordinates((path.parent / _unquote(rest).replace("\\", "/")).resolve(), folder, script, budget, where)
        return False
    if verb == "set":
        if re.match(r"[\"']?(defaultbasefreq(uency)?|voltagebases)\s*=", rest, re.IGNORECASE):
            _keep(script, where, line)
        return False
    if verb.startswith("calcv") or verb in {"open", "close", "disable", "enable"}:
        _keep(script, where, line)
        return False
    if verb in IGNORED_COMMANDS or verb.startswith("?"):
        return False
    raise RefusedInput(f"{where}: {verb[:40]!r} is not a statement that describes a feeder; remove the line")


def _object(verb: str, rest: str, where: str, script: Script) -> bool:
    found = _OBJECT.match(rest)
    if not found:
        raise RefusedInput(f"{where}: '{verb}' needs an object as CLASS.NAME")
    kind, name = found.group(1).lower(), found.group(2).lower()
    if kind in IGNORED_CLASSES:
        return False
    if kind not in CIRCUIT_CLASSES:
        raise RefusedInput(f"{where}: a feeder cannot hold a {kind} here; model it as a load or remove it")
    if kind == "vsource" and (verb == "new" or name != "source"):
        raise RefusedInput(f"{where}: a second source ({name}); a radial feeder has one, so split the circuit")
    if kind == "circuit" and any(s.text.lower().startswith("new circuit.") for s in script.statements):
        raise RefusedInput(f"{where}: a second circuit and so a second source; keep one circuit in a master file")
    body = rest[found.end() :].lstrip("\"'")
    _keep(script, where, f"{verb} {kind}.{name} {body.strip()}")
    return True


def _keep(script: Script, where: str, text: str) -> None:
    if len(script.statements) >= MAX_STATEMENTS:
        raise RefusedInput(f"{where}: more than {MAX_STATEMENTS} statements")
    script.statements.append(Statement(where, _SHAPES.sub("", text)))


def _unquote(text: str) -> str:
    text = text.strip()
    text = re.sub(r"^(file|name)\s*=\s*", "", text, flags=re.IGNORECASE)
    if text[:1] in "\"'([{" and len(text) > 1:
        closing = {"(": ")", "[": "]", "{": "}"}.get(text[0], text[0])
        return text[1:].split(closing, maxsplit=1)[0].strip()
    return text.split()[0] if text else text


def _read_coordinates(path: Path, folder: Path, script: Script, budget: list[int], where: str) -> None:
    for number, row in enumerate(_text_of(path, folder, budget, where).splitlines(), start=1):
        cells = [cell.strip().strip("\"'") for cell in re.split(r"[,\s]+", row.strip()) if cell.strip()]
        if not cells or cells[0].startswith(("!", "//")):
            continue
        try:
            x, y = float(cells[1]), float(cells[2])
        except (IndexError, ValueError):
            if number == 1:
                continue  # a heading
            raise RefusedInput(f"{path.name}:{number}: a bus position is written as 'bus, x, y'") from None
        if not (abs(x) < 1e12 and abs(y) < 1e12):
            raise RefusedInput(f"{path.name}:{number}: the position of {cells[0]} is out of range")
        script.coordinates[cells[0].lower()] = (x, y)
