"""Coordinates read off cell indexes, against H3's own distances and ancestors."""

import h3.api.basic_int as h3
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.contracts.spectrum_grid import apart, parents_within, plane
from gridpool.contracts.spectrum_sheets import parent

places = st.tuples(st.floats(-89.9, 89.9), st.floats(-180, 180))


@settings(deadline=None, max_examples=150)
@given(places, st.integers(0, 15), st.data())
def test_distances_on_the_plane_are_ring_distances(place, resolution, data):
    cell = h3.latlng_to_cell(*place, resolution)
    others = data.draw(st.lists(st.sampled_from(sorted(h3.grid_disk(cell, 6))), max_size=8))
    grid = plane(np.array([cell, *others], np.int64))
    alike = len({h3.get_base_cell_number(one) for one in (cell, *others)}) == 1
    hexagon = not any(h3.is_pentagon(one) for one in (h3.cell_to_parent(cell, 0),))
    assert len(grid) == (1 + len(others) if alike and hexagon else 0)
    for other, (i, j) in zip([cell, *others], grid.tolist(), strict=False):
        assert apart(int(grid[0, 0]), int(grid[0, 1]), i, j) == h3.grid_distance(cell, other)


@settings(deadline=None, max_examples=100)
@given(places, st.integers(3, 12), st.integers(0, 12), st.integers(1, 3))
def test_the_ancestors_within_reach_are_all_found_and_no_other(place, resolution, rings, count):
    cell = h3.latlng_to_cell(*place, resolution)
    cells = sorted(h3.grid_disk(cell, 1))[:count]
    wanted = {parent(one) for middle in cells for one in h3.grid_disk(middle, rings)}
    found, on_plane = parents_within(cells, rings)
    assert found == sorted(wanted)
    assert rings <= 8 or not on_plane


def test_no_plane_is_claimed_across_base_cells_or_under_a_pentagon():
    pentagon = sorted(h3.get_pentagons(7))[0]
    assert len(plane(np.array(h3.grid_disk(pentagon, 2), np.int64))) == 0
    assert not parents_within([pentagon], 8)[1]
    first, second = (next(iter(h3.cell_to_children(base, 7))) for base in sorted(h3.get_res0_cells())[:2])
    assert len(plane(np.array([first, second], np.int64))) == 0
