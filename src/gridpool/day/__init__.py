"""One day of a grid and its markets, end to end."""

from gridpool.day.play import play_day
from gridpool.day.scenario import Scenario, read_scenario, write_scenario

__all__ = ["Scenario", "play_day", "read_scenario", "write_scenario"]
