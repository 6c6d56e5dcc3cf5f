"""The command line: every command is a thin face of a documented Python function."""

from gridpool.cli.app import main

__all__ = ["main"]
