"""The compiled part of the package; everything else is said in pyproject.toml."""

from setuptools import Extension, setup

# Optional: a machine that cannot compile goes on in plain Python, slower (gridpool.ledger.compiled).
setup(ext_modules=[Extension("gridpool.ledger.native", ["src/gridpool/ledger/native.c"], optional=True)])
