"""A range of values of one parameter, as written on the command line."""

import math
from dataclasses import dataclass

import numpy as np

from gridpool.errors import RefusedInput

__all__ = ["Sweep"]

_MOST_POINTS = 10_000


@dataclass(frozen=True)
class Sweep:
    """The values that one parameter takes in turn.

    Parameters
    ----------
    name
        Name of the parameter, with underscores.
    values
        Its values, evenly spaced.
    """

    name: str
    values: tuple[float, ...]

    @classmethod
    def parse(cls, text: str, *, names: dict[str, type]) -> "Sweep":
        """Read ``name=lo:hi:n``, where ``name`` is one of ``names``; parameters of type int take whole values only.

        Raises RefusedInput if the text does not read so.
        """
        name, equals, span = text.partition("=")
        field = name.strip().removeprefix("--").replace("-", "_")
        if not equals or field not in names:
            known = ", ".join(known.replace("_", "-") for known in names)
            raise RefusedInput(f"--sweep {text!r} must read name=lo:hi:n, with one of the names {known}")
        try:
            low_text, high_text, count_text = span.split(":")
            low, high, count = float(low_text), float(high_text), int(count_text)
        except ValueError as error:
            raise RefusedInput(f"--sweep {text!r} must read name=lo:hi:n, such as arrival=0.1:0.95:40") from error
        if not (math.isfinite(low) and math.isfinite(high)) or not 1 <= count <= _MOST_POINTS:
            raise RefusedInput(f"--sweep {text!r} needs finite ends and from 1 to {_MOST_POINTS} points")
        values = tuple(float(value) for value in np.linspace(low, high, count))
        if names[field] is int and any(abs(value - round(value)) > 1e-9 for value in values):
            raise RefusedInput(f"--sweep {text!r} gives values of {name} that are no whole numbers; choose n to fit")
        if names[field] is int:
            values = tuple(float(round(value)) for value in values)
        return cls(field, values)
