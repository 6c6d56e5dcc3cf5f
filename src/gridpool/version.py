"""The one place that states the version of gridpool."""

__version__ = "0.1.0"
