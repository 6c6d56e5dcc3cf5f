"""The compiled part of the package; everything else is said in pyproject.toml."""

from setuptools import Extension, setup

# Optional: a machine that cannot compile goes on in plain Python, slower (gridpool.ledger.compiled).
FOLDER = "src/gridpool/ledger"
setup(
    ext_modules=[
        Extension(
            "gridpool.ledger.native",
            [f"{FOLDER}/native.c", f"{FOLDER}/native_pages.c", f"{FOLDER}/native_agents.c"],
            depends=[f"{FOLDER}/native.h"],
            optional=True,
        )
    ]
)
