"""The same branch-flow relaxation in CVXPY as it is printed, one semidefinite block a branch.

``bench/grid.py`` runs it in an environment of its own. It reads one JSON problem on standard input and writes times
in seconds: ``cold`` (write, compile and solve) and ``again`` (the parametrised problem with other limits and demands).
"""

import json
import sys
import time

import cvxpy as cp
import numpy as np

TOLERANCE = 1e-6
"""Both sides solve to this: at 1e-8 the form below makes no more progress on the larger feeders."""


def matrix(pair):
    return np.array(pair[0]) + 1j * np.array(pair[1])


def build(data):
    sizes, spans = data["sizes"], data["spans"]
    source = matrix(data["source"])
    count = len(data["cost"])
    u = cp.Variable(count)
    upper = cp.Parameter(count, value=np.array(data["upper"]))
    lower = np.array(data["lower"])
    v = [np.outer(source, source.conj())]
    flows, currents = [], []
    constraints = [u <= upper, u >= lower]
    heads = []
    for span in spans:
        n = len(span["rows"])
        single = n == 1
        v.append(cp.Variable((1, 1)) if single else cp.Variable((n, n), hermitian=True))
        flows.append(cp.Variable((n, n), complex=True))
        currents.append(cp.Variable((1, 1)) if single else cp.Variable((n, n), hermitian=True))
    drawn = [[] for _ in sizes]
    for k, draws in enumerate(data["draws"]):
        for bus, coordinate, real, imag in draws:
            drawn[bus].append((k, coordinate, complex(real, imag)))
    leaving = [[] for _ in sizes]
    for k, span in enumerate(spans):
        leaving[span["parent"]].append(k)
    losses = 0
    for k, span in enumerate(spans):
        rows, ratio, z = span["rows"], np.array(span["ratio"]), matrix(span["z"])
        n = len(rows)
        scale = np.outer(ratio, ratio)
        parent = v[span["parent"]]
        head = cp.multiply(scale, parent[rows][:, rows]) if span["parent"] else scale * parent[np.ix_(rows, rows)]
        heads.append(head)
        s, current = flows[k], currents[k]
        drop = s @ z.conj().T + z @ s.H - z @ current @ z.conj().T
        constraints.append(v[span["child"]] == head - (cp.real(drop) if n == 1 else drop))
        if span["parent"]:
            constraints.append(cp.bmat([[head, s], [s.H, current]]) >> 0)
        else:  # v is known and of rank one; without this CVXPY's form has no interior and its solver stops short
            drawn_current = cp.Variable((n, 1), complex=True)
            known = (ratio * source[rows]).reshape(n, 1)
            constraints += [s == known @ drawn_current.H]
            constraints.append(cp.bmat([[np.ones((1, 1)), drawn_current.H], [drawn_current, current]]) >> 0)
        losses = losses + cp.real(cp.trace(z @ current))
    for k, span in enumerate(spans):
        bus, n = span["child"], len(span["rows"])
        balance = cp.diag(flows[k] - matrix(span["z"]) @ currents[k]) - cp.diag(
            v[bus] @ matrix(data["shunts"][bus]).conj().T
        )
        for other in leaving[bus]:
            place = np.zeros((n, len(spans[other]["rows"])))
            place[spans[other]["rows"], range(len(spans[other]["rows"]))] = 1.0
            balance = balance - place @ cp.diag(flows[other])
        if drawn[bus]:
            share = np.zeros((n, count), dtype=complex)
            for unit, coordinate, power in drawn[bus]:
                share[coordinate, unit] += power
            balance = balance - share @ u
        constraints.append(balance == 0)
    low = cp.Parameter(len(data["limits"]), value=np.array([x["low"] for x in data["limits"]]))
    high = cp.Parameter(len(data["limits"]), value=np.array([x["high"] for x in data["limits"]]))
    for k, limit in enumerate(data["limits"]):
        row = np.array(limit["row"])
        weight = np.outer(row, row) * limit["scale"]
        square = cp.real(cp.trace(weight @ v[limit["bus"]]))
        margin = np.array(limit["margin"]) @ u if limit["margin"] else 0.0
        constraints += [square + margin <= high[k], square - margin >= low[k]]
    problem = cp.Problem(cp.Minimize(np.array(data["cost"]) @ u + data["loss_price"] * losses), constraints)
    return problem, upper, low, high


def main():
    data = json.load(sys.stdin)
    options = {
        "solver": cp.CLARABEL,
        "tol_gap_abs": TOLERANCE,
        "tol_gap_rel": TOLERANCE,
        "tol_feas": TOLERANCE,
        "max_threads": 1,
    }
    start = time.perf_counter()
    problem, upper, low, high = build(data)
    value = solve(problem, options)
    cold = time.perf_counter() - start
    again = []
    for k in range(3):
        upper.value = np.array(data["upper"]) * (1.0 - 1e-4 * k)
        low.value = low.value + 1e-6
        high.value = high.value - 1e-6
        start = time.perf_counter()
        solve(problem, options)
        again.append(time.perf_counter() - start)
    json.dump({"cold": cold, "again": min(again), "value": value}, sys.stdout)


def solve(problem, options):
    """Solve and give the optimum; None where the solver stops short of the tolerance (its time counts all the same)."""
    try:
        problem.solve(**options)
    except cp.error.SolverError:
        return None
    return problem.value if problem.status == cp.OPTIMAL else None


if __name__ == "__main__":
    main()
