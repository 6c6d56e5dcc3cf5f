"""The quarter hours of a local day, daylight saving included."""

import datetime
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from gridpool.errors import RefusedInput

__all__ = ["INTERVAL_HOURS", "INTERVAL_MS", "Calendar", "calendar_of"]

INTERVAL_MS = 900_000
INTERVAL_HOURS = 0.25


@dataclass(frozen=True, slots=True)
class Calendar:
    """The intervals ``[start, start + 15 min)`` of one local day: 92, 96 or 100 of them."""

    starts_ms: tuple[int, ...]
    """Start of each interval in milliseconds since the Unix epoch."""
    local: tuple[datetime.datetime, ...]
    """The same instants in local time."""

    def __len__(self) -> int:
        return len(self.starts_ms)

    @property
    def end_ms(self) -> int:
        """The end of the day."""
        return self.starts_ms[-1] + INTERVAL_MS

    def interval_at(self, clock: str) -> int:
        """Return the first interval that starts at or after the local time ``HH:MM``; their count where none does."""
        hour, minute = int(clock[:2]), int(clock[3:])
        for i, moment in enumerate(self.local):
            if (moment.hour, moment.minute) >= (hour, minute):
                return i
        return len(self.local)


def calendar_of(date: datetime.date, timezone: str) -> Calendar:
    """Return the calendar of a local day; raises RefusedInput outside the years 1990 to 2100."""
    if not 1990 <= date.year <= 2100:
        raise RefusedInput(f"date {date} is not allowed; it takes a day of the years 1990 to 2100")
    zone = ZoneInfo(timezone)
    begin = datetime.datetime.combine(date, datetime.time(), tzinfo=zone)
    end = datetime.datetime.combine(date + datetime.timedelta(days=1), datetime.time(), tzinfo=zone)
    starts = range(round(begin.timestamp()) * 1000, round(end.timestamp()) * 1000, INTERVAL_MS)
    return Calendar(
        starts_ms=tuple(starts),
        local=tuple(datetime.datetime.fromtimestamp(ms / 1000, tz=zone) for ms in starts),
    )
