"""Random radio problems for the tests of this folder."""

from collections.abc import Callable

import numpy as np
import pytest

from gridpool.radio import Instance, Link, Mvno, Numerology, Site

Maker = Callable[..., Instance]


def random_instance(
    seed: int,
    *,
    nodes: int | None = None,
    cells: int | None = None,
    mvnos: int = 1,
    slots: int = 1,
    fading: bool = False,
    work_conserving: bool = False,
    mu: int = 0,
    guard: int = 0,
    urllc_blocks: int | None = None,
    share: float | None = None,
    budget: int | None = None,
    coarse: bool = False,
) -> Instance:
    """Draw a problem small enough for brute force or HiGHS; ``coarse`` makes equal values common."""
    rng = np.random.default_rng([seed, 77])
    nodes = int(rng.integers(1, 13)) if nodes is None else nodes
    cells = int(rng.integers(1, 3)) if cells is None else cells
    zones = [int(z) for z in rng.integers(0, 8, 4)]
    zones[0] += 1
    blocks = sum(zones)
    names = [f"m{i}" for i in range(mvnos)]
    shares = rng.dirichlet(np.ones(mvnos)) if mvnos > 1 else [1.0 if share is None else share]
    span = 0.8 if fading else 0.0

    def rates(mean: float) -> list[int]:
        return [int(r) for r in mean * (1 - span + span * rng.exponential(1.0, blocks))]

    links = []
    for i in range(nodes):
        down = float(rng.choice([1.7e6, 2.5e6, 5e6])) if coarse else float(rng.uniform(0.7e6, 6e6))
        up = float(rng.choice([1e6, 2e6])) if coarse else float(rng.uniform(0.2e6, 6e6))
        if rng.random() < 0.05:
            up = 0.0
        links.append(
            Link(
                node=f"n{i}",
                cell=int(rng.integers(cells)),
                zone=int(rng.integers(4)),
                uplink_bps=int(up),
                downlink_bps=int(down),
                urllc=bool(rng.random() < 0.5),
                weight=float(rng.integers(0, 3)) + (1.0 if i == 0 else 0.0) if coarse else float(rng.exponential()),
                betweenness=float(rng.integers(0, 5)),
                mvno=names[int(rng.integers(mvnos))],
                uplink_blocks_bps=rates(up) if fading else None,
                downlink_blocks_bps=rates(down) if fading else None,
            )
        )
    return Instance(
        resource_blocks=blocks,
        zones=zones,
        links=links,
        sites=[Site(cell=c, x_m=0.0, y_m=0.0) for c in range(cells)],
        mvnos=[Mvno(name=name, share=float(s)) for name, s in zip(names, shares, strict=True)],
        slots=slots,
        urllc_blocks=int(rng.integers(0, 16)) if urllc_blocks is None else urllc_blocks,
        fading="measured" if fading else "none",
        numerology=Numerology(mu=mu, guard_blocks=guard),
        work_conserving=work_conserving,
        budget_blocks=budget,
    )


@pytest.fixture(scope="session")
def make_instance() -> Maker:
    return random_instance
