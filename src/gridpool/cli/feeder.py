"""``gridpool feeder``: show, check, solve and import feeders."""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter

from gridpool.cli.output import emit, table

__all__ = ["app"]

app = App(name="feeder", help="Show, check, solve and import feeders.")


@app.command
def show(
    feeder: str,
    *,
    write: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show the nodes, edges, loads and devices of a feeder.

    Example: ``gridpool feeder show ieee13``

    Parameters
    ----------
    feeder
        Packaged name, OpenDSS master (.dss) or feeder file (.json).
    write
        Write the feeder as a feeder file, to change its device table and load it again.
    json
        Print one JSON object.
    """
    from gridpool.grid.facts import write_facts
    from gridpool.grid.feeder import load_feeder

    f = load_feeder(feeder)
    if write is not None:
        write_facts(f.facts, write)
    nodes: list[dict[str, Any]] = [
        {
            "node": node,
            "parent": f.parent(node),
            "phases": f.phases(node),
            "power_w": f.node_power_w(node),
            "degree": f.degree(node),
            "position": list(f.coordinates[node]) if node in f.coordinates else None,
            "devices": [d.name for d in f.devices if d.node == node],
        }
        for node in f.nodes
    ]
    result = {
        "name": f.name,
        "title": f.facts.title,
        "source": f.source,
        "nominal_w": f.nominal_w,
        "nominal_var": sum(item.reactive_var for item in f.loads),
        "lower_pu": f.facts.lower_pu,
        "upper_pu": f.facts.upper_pu,
        "nodes": nodes,
        "edges": [list(edge) for edge in f.edges],
        "devices": [msgspec.to_builtins(d) for d in f.devices],
        "loads": [
            {
                "name": item.name,
                "bus": item.bus,
                "node": item.node,
                "phases": list(item.phases),
                "connection": item.connection,
                "model": item.model,
                "power_w": item.power_w,
                "reactive_var": item.reactive_var,
            }
            for item in f.loads
        ],
    }
    rows = [(n["node"], n["parent"], n["phases"], n["power_w"], ", ".join(n["devices"]) or None) for n in nodes]
    text = f"{f.name}: {f.facts.title or 'own feeder'}; {len(nodes)} nodes, {f.nominal_w / 1e3:g} kW\n\n"
    emit(result, json=json, text=text + table(("node", "parent", "phases", "load W", "devices"), rows))


@app.command
def check(feeder: str, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Check a feeder: refused if it is not radial with one source, else a list of findings.

    Example: ``gridpool feeder check ieee37``

    Parameters
    ----------
    feeder
        Packaged name, OpenDSS master (.dss) or feeder file (.json).
    json
        Print one JSON object.
    """
    from gridpool.grid.consistency import check_feeder
    from gridpool.grid.feeder import load_feeder

    f = load_feeder(feeder)
    findings = check_feeder(f)
    result = {
        "name": f.name,
        "radial": True,
        "nodes": len(f.nodes),
        "buses": len(f.buses),
        "ok": not any(finding.severity == "warning" for finding in findings),
        "findings": [msgspec.to_builtins(finding) for finding in findings],
    }
    rows = [(x.severity, x.check, x.where, x.message) for x in findings]
    text = f"{f.name}: radial, one source, {len(f.nodes)} nodes on {len(f.buses)} buses, {len(findings)} findings"
    emit(result, json=json, text=text + ("\n\n" + table(("", "check", "where", "finding"), rows) if rows else ""))


@app.command
def solve(
    feeder: str,
    *,
    taps: Literal["published", "neutral"] = "published",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Solve the power flow with the taps held at the published positions, capacitors on.

    Example: ``gridpool feeder solve ieee34mod2``

    Parameters
    ----------
    feeder
        Packaged name, OpenDSS master (.dss) or feeder file (.json).
    taps
        Positions of the regulators.
    json
        Print one JSON object.
    """
    from gridpool.grid.feeder import load_feeder
    from gridpool.grid.solution import solve_feeder

    flow = solve_feeder(load_feeder(feeder), taps=taps)
    rows = [(bus, *[f"{v:.5f}" for _, v in values]) for bus, values in flow.voltages.items()]
    wide = [(*row, *[""] * (4 - len(row))) for row in rows]
    error = "no published solution" if flow.max_error_pu is None else f"{flow.max_error_pu:.2g} p.u. at {flow.worst}"
    text = (
        f"source {flow.source_w / 1e3:.3f} kW {flow.source_var / 1e3:+.3f} kvar, loss {flow.loss_w / 1e3:.3f} kW\n"
        f"largest error to the published solution: {error}\n\n"
    )
    emit(msgspec.to_builtins(flow), json=json, text=text + table(("bus", "p.u.", "", ""), wide))


@app.command(name="import")
def import_(
    file: Path,
    *,
    out: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Read an OpenDSS master file and write it as a feeder file.

    Example: ``gridpool feeder import mine.dss --out mine.json``

    Parameters
    ----------
    file
        The master file; it may redirect to files in its own folder.
    out
        The feeder file to write; the master's name with .json in the working folder by default.
    json
        Print one JSON object.
    """
    from gridpool.errors import RefusedInput
    from gridpool.grid.dss_import import import_dss
    from gridpool.grid.facts import write_facts
    from gridpool.grid.feeder import build_feeder

    if file.suffix.lower() != ".dss":
        raise RefusedInput(f"{file}: import reads OpenDSS master files (.dss)")
    f = build_feeder(import_dss(file))
    target = Path(file.stem + ".json") if out is None else out
    write_facts(f.facts, target)
    result = {
        "name": f.name,
        "file": str(target),
        "source": f.source,
        "nodes": len(f.nodes),
        "buses": len(f.buses),
        "loads": len(f.facts.loads),
        "devices": [msgspec.to_builtins(d) for d in f.devices],
        "nominal_w": f.nominal_w,
    }
    emit(result, json=json)
