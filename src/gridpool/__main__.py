"""Lets ``python -m gridpool`` stand in for the ``gridpool`` command."""

from gridpool.cli import main

main()
