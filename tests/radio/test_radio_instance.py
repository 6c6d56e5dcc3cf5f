"""Instances in files: what is written is read back, and what does not fit is refused whole."""

import json

import msgspec
import numpy as np
import pytest

from gridpool.errors import RefusedInput
from gridpool.radio import Mvno, Numerology, allocate, model_instance, read_instance, write_instance


@pytest.fixture(params=["none", "rayleigh"])
def instance(request):
    n = 12
    return model_instance(
        [f"n{i}" for i in range(n)],
        list(range(-1, n - 1)),
        [1e4] * n,
        [i % 3 == 0 for i in range(n)],
        resource_blocks=10,
        layout="streets",
        mvnos=[Mvno(name="a", share=0.5), Mvno(name="b", share=0.5)],
        slots=2,
        fading=request.param,
        rng=np.random.default_rng(1),
    )


def test_written_instance_reads_back_equal(instance, tmp_path):
    path = tmp_path / "instance.json"
    write_instance(instance, path)
    assert read_instance(path) == instance
    assert allocate(read_instance(path)) == allocate(instance)
    assert list(tmp_path.iterdir()) == [path]


def change(data, *keys_and_value):
    *keys, last, value = keys_and_value
    for key in keys:
        data = data[key]
    data[last] = value


@pytest.mark.parametrize(
    "edit",
    [
        ("zones", [1, 1, 1, 1]),
        ("zones", [10, 0, 0]),
        ("resource_blocks", 0),
        ("resource_blocks", 107),
        ("slots", 10**9),
        ("alpha_ratio", -1),
        ("links", 0, "zone", 4),
        ("links", 0, "cell", 99),
        ("links", 0, "weight", -1),
        ("links", 0, "uplink_bps", -5),
        ("links", 0, "mvno", "stranger"),
        ("links", 0, "node", "n1"),
        ("links", 0, "surprise", 1),
        ("links", 0, "uplink_blocks_bps", [1]),
        ("mvnos", 0, "share", 0.9),
        ("mvnos", []),
        ("mvnos", 0, "name", "b"),
        ("sites", 1, "cell", 0),
        ("requirement", "outage", 0),
        ("requirement", "delay_s", 0),
        ("numerology", {"mu": 9}),
    ],
)
def test_instances_that_do_not_fit_are_refused(instance, tmp_path, edit):
    path = tmp_path / "instance.json"
    write_instance(instance, path)
    data = json.loads(path.read_text())
    change(data, *edit)
    path.write_text(json.dumps(data))
    with pytest.raises(RefusedInput, match="instance"):
        read_instance(path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"links": [' + "[" * 100_000, "\x00", '{"resource_blocks": 1e400}'])
def test_files_that_are_no_instance_are_refused(tmp_path, text):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(RefusedInput):
        read_instance(path)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(RefusedInput, match="cannot be read"):
        read_instance(tmp_path / "nothing.json")


def test_weights_that_are_all_zero_are_refused(instance, tmp_path):
    silent = msgspec.structs.replace(
        instance, links=[msgspec.structs.replace(link, weight=0.0) for link in instance.links]
    )
    path = tmp_path / "silent.json"
    write_instance(silent, path)
    with pytest.raises(RefusedInput, match="weight"):
        read_instance(path)


def test_features_that_exclude_each_other_are_refused(instance, tmp_path):
    mixed = msgspec.structs.replace(instance, numerology=Numerology(mu=1))
    path = tmp_path / "mixed.json"
    write_instance(mixed, path)
    with pytest.raises(RefusedInput):
        read_instance(path)


def test_another_number_of_blocks(instance):
    if instance.fading == "none":
        assert sum(instance.with_resource_blocks(30).zones) == 30
    else:
        with pytest.raises(RefusedInput, match="each of 10"):
            instance.with_resource_blocks(30)
