"""The page of a plan: maps of the feeder and of its cells, the slices granted, the methods compared, the worth."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from gridpool.grid import Feeder
from gridpool.planner.plan import Plan
from gridpool.radio import Instance

__all__ = ["plan_page"]

WIDTH, HEIGHT, MARGIN = 560.0, 430.0, 34.0
COLOURS = {"both": "#0b6e99", "mmtc": "#66a182", "urllc": "#edae49", "none": "#c9ced3"}
NAMES = {"both": "observed and controlled", "mmtc": "observed", "urllc": "controlled", "none": "no slice"}
ZONES = ("inner zone", "outer zone 1", "outer zone 2", "outer zone 3")

STYLE = """
body{margin:0;font:15px/1.5 system-ui,sans-serif;color:#1d2733;background:#f5f6f7}
main{max-width:1180px;margin:0 auto;padding:20px 16px 48px}
h1{font-size:24px;margin:8px 0 2px}h2{font-size:17px;margin:0 0 8px}.lead{color:#55606b;margin:0 0 18px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin-bottom:18px}
.card,section{background:#fff;border:1px solid #e1e5e8;border-radius:8px;padding:12px 14px}
.card b{display:block;font-size:22px}.card span{color:#55606b;font-size:13px}
.maps{display:grid;grid-template-columns:repeat(auto-fit,minmax(320px,1fr));gap:14px;margin-bottom:14px}
section{margin-bottom:14px;min-width:0}svg{width:100%;height:auto;display:block}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:13.5px}
th,td{padding:4px 10px 4px 0;text-align:left;white-space:nowrap;border-bottom:1px solid #edf0f2}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:13px;color:#3b4650;margin-top:8px}
.legend i{display:inline-block;width:11px;height:11px;border-radius:50%;margin-right:6px;vertical-align:-1px}
li{margin-bottom:3px;overflow-wrap:anywhere}ul{padding-left:20px;margin:6px 0}
@media(max-width:420px){main{padding:12px 10px 32px}.maps{grid-template-columns:1fr}h1{font-size:20px}}
"""


def plan_page(feeder: Feeder, plan: Plan, compared: Sequence[Plan] = (), worth: Mapping[str, Any] | None = None) -> str:
    """Return a plan as one HTML page that needs no network."""
    done = plan.allocation
    served = {node: _state(plan, node) for node in feeder.nodes}
    cards = (
        (f"{plan.served_power_w / 1e3:,.0f} kW", "load that can be served"),
        (f"{plan.served_share:.1%}", "of the demand"),
        (f"{plan.score:.1%}", "of what full connectivity serves"),
        (f"{done.urllc_granted} of {done.urllc_requested}", "URLLC slices (control)"),
        (f"{done.mmtc_granted} of {done.mmtc_requested}", "mMTC slices (observation)"),
        (f"{done.value:.4g}", f"bit/s/Hz; gap {done.gap:.2%} to the bound"),
    )
    head = (
        f"{done.method} on {plan.instance.resource_blocks} resource blocks a cell, {len(_cells(plan.instance))} "
        f"cell(s), variant {done.variant}, seed {plan.seed}; power certified: {plan.certified}"
    )
    parts = [
        f"<h1>Slices for feeder {escape(feeder.name)}</h1><p class=lead>{escape(head)}</p>",
        "<div class=cards>" + "".join(f"<div class=card><b>{a}</b><span>{b}</span></div>" for a, b in cards) + "</div>",
        "<div class=maps>",
        f"<section><h2>Feeder</h2>{_feeder_map(feeder, served)}{_legend()}</section>",
        f"<section><h2>Cells</h2>{_cell_map(plan.instance, served, feeder)}"
        "<p class=legend>Triangles: gNBs. Dashed: radius of a cell. Solid: end of the inner zone without shadowing; "
        "rays part the outer zones.</p></section>",
        "</div>",
        _grants(plan),
    ]
    if compared:
        parts.append(_methods(compared))
    if worth:
        parts.append(_worth(worth))
    notes = "".join(f"<li>{escape(note)}</li>" for note in plan.assumptions)
    parts.append(f"<section><h2>Assumptions</h2><ul>{notes}</ul></section>")
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport "
        f'content="width=device-width,initial-scale=1"><title>Slices for {escape(feeder.name)}</title>'
        f"<style>{STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def _state(plan: Plan, node: str) -> str:
    seen, steered = node in plan.observed, node in plan.controlled
    return "both" if seen and steered else "mmtc" if seen else "urllc" if steered else "none"


def _cells(instance: Instance) -> list[int]:
    return sorted({link.cell for link in instance.links})


def _legend() -> str:
    keys = "".join(f'<span><i style="background:{COLOURS[k]}"></i>{NAMES[k]}</span>' for k in COLOURS)
    return f"<p class=legend>{keys}<span>squares: nodes with a device</span></p>"


def _frame(points: Sequence[tuple[float, float]], *, equal: bool) -> tuple[float, float, float, float]:
    """Return scale and offset in x and y (upwards) that fit points into the picture."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    span_x, span_y = max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0
    scale_x, scale_y = (WIDTH - 2 * MARGIN) / span_x, (HEIGHT - 2 * MARGIN) / span_y
    if equal:
        scale_x = scale_y = min(scale_x, scale_y)
    left = (WIDTH - scale_x * span_x) / 2 - scale_x * min(xs)
    bottom = (HEIGHT - scale_y * span_y) / 2 - scale_y * min(ys)
    return scale_x, left, scale_y, bottom


def _feeder_map(feeder: Feeder, state: Mapping[str, str]) -> str:
    places = _drawing(feeder)
    sx, left, sy, bottom = _frame(list(places.values()), equal=False)
    spot = {node: (left + sx * x, HEIGHT - bottom - sy * y) for node, (x, y) in places.items()}
    lines = "".join(
        f'<line x1="{spot[a][0]:.1f}" y1="{spot[a][1]:.1f}" x2="{spot[b][0]:.1f}" y2="{spot[b][1]:.1f}"/>'
        for a, b in feeder.edges
    )
    return _svg(f'<g stroke="#8a949e" stroke-width="1.6">{lines}</g>' + _nodes(spot, state, feeder), "Feeder map")


def _drawing(feeder: Feeder) -> dict[str, tuple[float, float]]:
    """Return a place for each node: its coordinates, or depth and order in the tree where some have none."""
    if all(node in feeder.coordinates for node in feeder.nodes):
        return {node: feeder.coordinates[node] for node in feeder.nodes}
    depth = {feeder.source: 0}
    for above, below in feeder.edges:
        depth[below] = depth[above] + 1
    rows: dict[int, int] = {}
    places = {}
    for node in feeder.nodes:
        row = rows.get(depth[node], 0)
        rows[depth[node]] = row + 1
        places[node] = (float(depth[node]), -float(row))
    return places


def _cell_map(instance: Instance, state: Mapping[str, str], feeder: Feeder) -> str:
    radius = _radius(instance)
    corners = [(s.x_m + dx, s.y_m + dy) for s in instance.sites for dx in (-radius, radius) for dy in (-radius, radius)]
    points = [(link.x_m, link.y_m) for link in instance.links] + corners
    if not points:
        return ""
    scale, left, _, bottom = _frame(points, equal=True)
    spot = {link.node: (left + scale * link.x_m, HEIGHT - bottom - scale * link.y_m) for link in instance.links}
    drawn = []
    for site in instance.sites:
        x, y = left + scale * site.x_m, HEIGHT - bottom - scale * site.y_m
        outer, inner = scale * radius, scale * radius * 2 / 3
        rays = "".join(
            f'<line x1="{x + inner * math.cos(a):.1f}" y1="{y - inner * math.sin(a):.1f}" '
            f'x2="{x + outer * math.cos(a):.1f}" y2="{y - outer * math.sin(a):.1f}"/>'
            for a in (0.0, 2 * math.pi / 3, 4 * math.pi / 3)
        )
        drawn.append(
            f'<g fill="none" stroke="#aab4bd"><circle cx="{x:.1f}" cy="{y:.1f}" r="{outer:.1f}" '
            f'stroke-dasharray="4 4"/><circle cx="{x:.1f}" cy="{y:.1f}" r="{inner:.1f}"/>{rays}</g>'
            f'<path d="M{x:.1f} {y - 7:.1f}l6 12h-12z" fill="#d1495b"><title>gNB of cell {site.cell}</title></path>'
        )
    return _svg("".join(drawn) + _nodes(spot, state, feeder, crowded=20), "Map of the cells")


def _radius(instance: Instance) -> float:
    """Return the distance to the farthest node of a cell, at least 250 m, as the radius to draw."""
    places = {site.cell: (site.x_m, site.y_m) for site in instance.sites}
    reach = [
        math.hypot(link.x_m - places[link.cell][0], link.y_m - places[link.cell][1])
        for link in instance.links
        if link.cell in places
    ]
    return max([250.0, *reach])


def _nodes(
    spot: Mapping[str, tuple[float, float]], state: Mapping[str, str], feeder: Feeder, *, crowded: int = 60
) -> str:
    devices = set(feeder.device_nodes())
    marks, labels = [], []
    for node, (x, y) in spot.items():
        colour, title = COLOURS[state[node]], f"<title>{escape(node)}: {NAMES[state[node]]}</title>"
        if node in devices:
            shape = f'<rect x="{x - 6:.1f}" y="{y - 6:.1f}" width="12" height="12"'
        else:
            shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5"'
        tag = "rect" if node in devices else "circle"
        marks.append(f'{shape} fill="{colour}" stroke="#fff" stroke-width="1.2">{title}</{tag}>')
        labels.append(f'<text x="{x + 8:.1f}" y="{y - 6:.1f}">{escape(node)}</text>')
    size = 11 if len(spot) <= crowded else 7.5
    return "".join(marks) + f'<g font-size="{size}" fill="#3b4650">{"".join(labels)}</g>'


def _svg(body: str, title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{title}">{body}</svg>'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: int) -> str:
    """Lay out rows whose last ``numbers`` columns are numbers."""
    first = len(header) - numbers

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{' class=n' if i >= first else ''}>{escape(cell)}</{tag}>" for i, cell in enumerate(row))

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<div class=scroll><table><tr>{cells(header, 'th')}</tr>{body}</table></div>"


def _grants(plan: Plan) -> str:
    rows = [
        (
            grant.node,
            grant.slice,
            str(grant.cell),
            ZONES[grant.zone],
            grant.mvno,
            " ".join(map(str, grant.resource_blocks)),
            str(grant.slot),
            f"{grant.rate_bps / 1e6:.2f}",
            f"{grant.required_bps / 1e6:.2f}" if grant.required_bps else "-",
            f"{grant.delay_outage:.1e}" if grant.delay_outage is not None else "-",
        )
        for grant in plan.allocation.grants
    ]
    header = ("node", "slice", "cell", "zone", "MVNO", "resource blocks", "slot", "Mbit/s", "needed", "delay outage")
    return f"<section><h2>Slices granted</h2>{_table(header, rows, 4)}</section>"


def _methods(compared: Sequence[Plan]) -> str:
    rows = [
        (
            one.allocation.method,
            f"{one.allocation.value:.5g}",
            f"{one.allocation.gap:.2%}",
            str(one.allocation.urllc_granted),
            str(one.allocation.mmtc_granted),
            f"{one.served_power_w / 1e3:,.0f}",
            f"{one.score:.1%}",
        )
        for one in compared
    ]
    header = ("method", "value bit/s/Hz", "gap", "URLLC", "mMTC", "served kW", "score")
    return f"<section><h2>Methods on the same problem</h2>{_table(header, rows, 6)}</section>"


def _worth(worth: Mapping[str, Any]) -> str:
    currency = str(worth["currency"])
    plan = ("this plan", worth["value_per_year"], worth["cost_per_year"], worth["net_per_year"])
    others = [
        (name.replace("_", " "), one["value_per_year"], one["cost_per_year"], one["net_per_year"])
        for name, one in worth["baselines"].items()
    ]
    rows = [(name, f"{value:,.0f}", f"{cost:,.0f}", f"{net:,.0f}") for name, value, cost, net in [plan, *others]]
    header = ("connection", f"value {currency} a year", f"cost {currency} a year", "net")
    notes = "".join(f"<li>{escape(note)}</li>" for note in worth["assumptions"])
    return f"<section><h2>Worth</h2>{_table(header, rows, 3)}<ul>{notes}</ul></section>"
