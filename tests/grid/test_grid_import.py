"""OpenDSS masters as hostile input: what is read, what is refused, and that nothing crashes."""

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gridpool.cli import main
from gridpool.errors import GridpoolError, RefusedInput
from gridpool.grid import load_feeder, served_power, solve_feeder
from gridpool.grid.dss_statements import read_script
from gridpool.grid.feeder import build_feeder

HEAD = """
Clear
New Circuit.mine basekv=12.47 pu=1.0 phases=3 bus1=src MVAsc3=20000 MVAsc1=21000
New Linecode.oh nphases=3 rmatrix=(0.3 | 0.1 0.3 | 0.1 0.1 0.3) xmatrix=(0.6 | 0.2 0.6 | 0.2 0.2 0.6) units=km
New Line.a bus1=src bus2=b1 linecode=oh length=2 units=km
New Line.b bus1=b1 bus2=b2 linecode=oh length=1 units=km
New Line.c bus1=b1 bus2=b3 linecode=oh length=3 units=km
New Load.x bus1=b2 phases=3 conn=wye model=1 kv=12.47 kw=900 kvar=300
New Load.y bus1=b3.2 phases=1 conn=wye model=2 kv=7.2 kw=200 kvar=50
"""
TAIL = "Set Voltagebases=[12.47]\nCalcVoltageBases\nSolve\nShow Voltages LN Nodes\nExport voltages\nPlot Circuit\n"


def master(folder: Path, text: str, name: str = "mine.dss") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_an_own_feeder_is_read_solved_and_served(tmp_path: Path) -> None:
    feeder = load_feeder(master(tmp_path, HEAD + "New Capacitor.q bus1=b3 phases=3 kvar=300 kv=12.47\n" + TAIL))
    assert feeder.nodes == ("src", "b1", "b2", "b3")
    assert feeder.nominal_w == pytest.approx(1100e3)
    flow = solve_feeder(feeder)
    assert flow.max_error_pu is None
    assert flow.source_w == pytest.approx(1100e3 + flow.loss_w, rel=0.02)
    assert served_power(feeder, feeder.nodes, feeder.nodes).served_share == pytest.approx(1.0)
    assert not list(tmp_path.glob("*.txt"))
    assert not list(tmp_path.glob("*.csv"))


def test_the_callers_working_folder_and_engine_stay_as_they_were(tmp_path: Path) -> None:
    here = os.getcwd()
    before = solve_feeder(load_feeder("ieee13"))
    load_feeder(master(tmp_path, HEAD + TAIL))
    assert os.getcwd() == here
    assert solve_feeder(load_feeder("ieee13")) == before


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("New Line.loop bus1=b2 bus2=b3 linecode=oh length=1 units=km\n", r"not radial: loop b2 - b1 - b3 - b2"),
        ("New Line.twin bus1=b1 bus2=b2 linecode=oh length=1 units=km\n", r"parallel lines"),
        ("New Vsource.second bus1=b3 basekv=12.47\n", r"second source"),
        ("New Circuit.other basekv=12.47 bus1=z\n", r"second circuit"),
        ("New Line.far bus1=p bus2=q linecode=oh length=1 units=km\n", r"no path to the source"),
        ("New Load.z bus1=nowhere phases=3 kv=12.47 kw=1 kvar=0\n", r"nothing supplies"),
        ("New Load.z bus1=b2 model=9 phases=3 kv=12.47 kw=1\n", r"."),
        ("New Reactor.r bus1=b1 bus2=b9 phases=3 kvar=1 kv=12.47\n", r"reactor"),
        ("New Generator.g bus1=b1 kw=1 UserModel=evil.so\n", r"files and libraries"),
        ("New Loadshape.s npts=3 csvfile=/etc/passwd\n", r"files and libraries"),
        ("New Line.t bus1=b1.1.2.3 bus2=b7.2.3.1 linecode=oh length=1\n", r"changes its phases"),
        ("New Line.t bus1=b1.7 bus2=b7.7 phases=1 length=1\n", r"phases"),
        ("New Transformer.t windings=3 phases=3 buses=(b1 b8 b9) kvs=(12.47 1 1) kvas=(10 10 10)\n", r"3 windings"),
        ("cd /\n", r"'cd' is not a statement"),
        ("doscmd rm -rf x\n", r"'doscmd' is not a statement"),
        ("set editor=/bin/sh\nfrobnicate everything\n", r"'frobnicate'"),
        ("Redirect ../outside.dss\n", r"outside the folder"),
        ("Redirect /etc/passwd\n", r"outside the folder"),
        ("Redirect missing.dss\n", r"no file"),
        ("Redirect mine.dss\n", r"second circuit|nest deeper"),
        ("BusCoords xy.csv\n", r"no file"),
        ("New Line.bad bus1=b1 bus2=b9 linecode=unknowncode length=1\n", r"."),
        ("New Line.nan bus1=b1 bus2=b9 linecode=oh length=nan units=km\n", r"."),
        ("New Line.neg bus1=b1 bus2=b9 linecode=oh length=-4 units=km\n", r"."),
        ("New Load.neg bus1=b2 phases=3 kv=12.47 kw=-5 kvar=1\n", r"."),
        ("New Line.self bus1=b2 bus2=b2 linecode=oh length=1\n", r"begins and ends"),
    ],
)
def test_what_is_no_radial_feeder_with_one_source_is_refused(tmp_path: Path, extra: str, message: str) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "outside.dss").write_text("! nothing\n")
    with pytest.raises(RefusedInput, match=message):
        load_feeder(master(tmp_path / "inner", HEAD + extra + TAIL))


def test_a_loop_through_an_open_switch_is_radial(tmp_path: Path) -> None:
    tie = "New Line.tie bus1=b2 bus2=b3 linecode=oh length=1 units=km switch=no\nOpen Line.tie 1\n"
    feeder = load_feeder(master(tmp_path, HEAD + tie + TAIL))
    assert len(feeder.edges) == 3


@pytest.mark.parametrize("text", ["", "! only a comment\n", "New Line.a bus1=x bus2=y\n", "solve\n"])
def test_a_file_without_a_source_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RefusedInput, match="no source"):
        load_feeder(master(tmp_path, text))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.dss"
    path.write_bytes(b"\x7fELF\0\0\0")
    with pytest.raises(RefusedInput, match="not a text file"):
        load_feeder(path)
    with pytest.raises(RefusedInput):
        load_feeder(tmp_path)
    with pytest.raises(RefusedInput, match="cannot read"):
        load_feeder(tmp_path / "none.dss")


def test_a_file_that_exhausts_the_engine_is_refused(tmp_path: Path) -> None:
    huge = "New Linecode.big nphases=60000 r1=1 x1=1\nNew Line.z bus1=b1 bus2=b9 phases=60000 linecode=big length=1\n"
    with pytest.raises(RefusedInput):
        load_feeder(master(tmp_path, HEAD + huge + TAIL))


def test_a_source_near_the_limit_gets_room_above_it(tmp_path: Path) -> None:
    high = load_feeder(master(tmp_path, HEAD.replace("pu=1.0 ", "pu=1.05 ") + TAIL))
    assert high.facts.upper_pu == pytest.approx(1.058)
    assert load_feeder(master(tmp_path, HEAD + TAIL)).facts.upper_pu == 1.05
    assert served_power(high, high.nodes, ()).served_share > 0.5


def test_any_file_name_and_letter_case_will_do(tmp_path: Path) -> None:
    feeder = load_feeder(master(tmp_path, HEAD.upper() + TAIL, name="My Feeder (2).DSS"))
    assert feeder.name == "my-feeder--2-"
    assert feeder.nodes == ("src", "b1", "b2", "b3")
    assert served_power(feeder, feeder.nodes, ()).served_share > 0.5


def test_redirects_coordinates_and_continuations_are_followed(tmp_path: Path) -> None:
    (tmp_path / "loads.dss").write_text(
        "New Load.w bus1=b3\n~ phases=3 kv=12.47\nmore kw=60 kvar=0 ! comment\n/* x\ny */\n"
    )
    (tmp_path / "xy.csv").write_text("Bus,X,Y\nsrc,0,0\nb1, 1, 2\nb2 3 4\n")
    feeder = load_feeder(master(tmp_path, HEAD + "Redirect loads.dss\n" + TAIL + "BusCoords xy.csv\n"))
    assert feeder.nominal_w == pytest.approx(1160e3)
    assert feeder.coordinates["b2"] == (3.0, 4.0)
    assert "b3" not in feeder.coordinates


def test_import_writes_a_feeder_file_that_loads_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = master(tmp_path, HEAD + TAIL)
    main(["feeder", "import", str(path)])
    capsys.readouterr()
    again = load_feeder(tmp_path / "mine.json")
    assert again.facts == load_feeder(path).facts
    assert build_feeder(again.facts).edges == again.edges


def test_a_refusal_is_one_line_and_exit_code_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = master(tmp_path, HEAD + "New Line.loop bus1=b2 bus2=b3 linecode=oh length=1 units=km\n" + TAIL)
    for command in (["feeder", "check", str(path), "--json"], ["feeder", "import", str(path)]):
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code == 1
        out, error = capsys.readouterr()
        assert out == ""
        assert error.count("\n") == 1
        assert "loop b2 - b1 - b3 - b2" in error


KNOWN = [*HEAD.splitlines(), "~ kw=1", "Redirect mine.dss", "New Line.q bus1=b3 bus2=b9", "Edit Load.x kw=1e300"]
LINE = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60) | st.sampled_from(KNOWN)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINE, max_size=12))
def test_no_script_breaks_the_reader(tmp_path: Path, lines: list[str]) -> None:
    path = master(tmp_path, "\n".join(lines))
    with suppress(GridpoolError):
        assert read_script(path).statements


@pytest.mark.slow
@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(extra=st.lists(LINE, min_size=1, max_size=6))
def test_no_script_breaks_the_engine(tmp_path: Path, extra: list[str]) -> None:
    path = master(tmp_path, HEAD + "\n".join(extra) + "\n" + TAIL)
    with suppress(GridpoolError):
        assert load_feeder(path).nodes
