"""Fig. 6: how many loans carry each of the 35 credit grades."""

import csv
import json
from importlib.resources import files
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from gridpool.errors import RefusedInput

__all__ = ["GRADES", "GradeCounts", "count_grades", "published_grades"]

GRADES = tuple(f"{letter}{digit}" for letter in "ABCDEFG" for digit in range(1, 6))
MAX_FIELD = 1 << 20


class GradeCounts(msgspec.Struct, frozen=True):
    """Loans of each grade, A1 to G5."""

    source: str
    loans: tuple[int, ...]

    @property
    def total(self) -> int:
        """Number of loans."""
        return sum(self.loans)

    @property
    def shares(self) -> NDArray[np.float64]:
        """Probability of each grade."""
        return np.array(self.loans, dtype=np.float64) / self.total


def published_grades() -> GradeCounts:
    """Give the counts that come with gridpool."""
    data = json.loads(files("gridpool.studies").joinpath("li2018_grades.json").read_text(encoding="utf-8"))
    by_grade = dict(zip(data["grades"], data["loans"], strict=True))
    return GradeCounts(source=data["source"], loans=tuple(by_grade[grade] for grade in GRADES))


def count_grades(path: Path) -> GradeCounts:
    """Count the grades of a CSV file: a loan a row with a column ``sub_grade``, or ``grade,loans`` with 35 counts.

    Lines before the header and rows without a grade, which the site's exports have, are passed over. Raises
    RefusedInput for a file with neither form, an unknown grade or a count that is none.
    """
    counts = dict.fromkeys(GRADES, 0)
    csv.field_size_limit(MAX_FIELD)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            header = next((row for row in rows if "sub_grade" in row or row == ["grade", "loans"]), None)
            if header is None:
                raise RefusedInput(f"{path} has neither a column sub_grade nor the columns grade,loans")
            column = header.index("sub_grade") if "sub_grade" in header else 0
            for row in rows:
                grade = row[column].strip() if column < len(row) else ""
                if not grade:
                    continue
                if grade not in counts:
                    raise RefusedInput(
                        f"{path}: line {rows.line_num} has the grade {grade[:20]!r}; grades are A1 to G5"
                    )
                number = row[1] if header == ["grade", "loans"] and len(row) > 1 else "1"
                if not number.isdecimal() or len(number) > 12:
                    raise RefusedInput(f"{path}: line {rows.line_num} has the count {number[:20]!r}; give a number")
                counts[grade] += int(number)
    except (UnicodeDecodeError, csv.Error) as error:
        raise RefusedInput(f"{path} is not a CSV file: {error}") from error
    if not any(counts.values()):
        raise RefusedInput(f"{path} holds no loans")
    return GradeCounts(source=path.name, loans=tuple(counts.values()))
