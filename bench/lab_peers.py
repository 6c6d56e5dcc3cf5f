"""Run in the peers' own environment: the same access network in ciw and in simpy, requests a second as JSON."""

import json
import random
import sys
import time


def run_ciw(arrival: float, block_rate: float, service_rate: float, links: int, horizon: float) -> dict[str, float]:
    """One request a block and one confirmation: a tandem of M/M/1 and M/M/s."""
    import ciw  # type: ignore[import-not-found]

    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate=arrival), None],
        service_distributions=[ciw.dists.Exponential(rate=block_rate), ciw.dists.Exponential(rate=service_rate)],
        number_of_servers=[1, links],
        routing=[[0.0, 1.0], [0.0, 0.0]],
    )
    ciw.seed(1)
    simulation = ciw.Simulation(network)
    start = time.perf_counter()
    simulation.simulate_until_max_time(horizon)
    seconds = time.perf_counter() - start
    records = [record for record in simulation.get_all_records() if record.node == 2]
    wait = sum(record.waiting_time for record in records) / len(records)
    return {"requests_per_s": len(records) / seconds, "service_wait": wait, "requests": len(records)}


def run_simpy(
    arrival: float, block_rate: float, service_rate: float, links: int, block_size: int, horizon: float
) -> dict[str, float]:
    """Blocks of several requests and one confirmation: three kinds of processes and one resource."""
    import simpy  # type: ignore[import-not-found]

    rng = random.Random(1)
    environment = simpy.Environment()
    servers = simpy.Resource(environment, capacity=links)
    pending: list[float] = []
    waits: list[float] = []

    def arrivals():  # type: ignore[no-untyped-def]
        while True:
            yield environment.timeout(rng.expovariate(arrival))
            pending.append(environment.now)

    def serve(confirmed: float):  # type: ignore[no-untyped-def]
        with servers.request() as request:
            yield request
            waits.append(environment.now - confirmed)
            yield environment.timeout(rng.expovariate(service_rate))

    def blocks():  # type: ignore[no-untyped-def]
        while True:
            yield environment.timeout(rng.expovariate(block_rate))
            for _ in pending[:block_size]:
                environment.process(serve(environment.now))
            del pending[:block_size]

    environment.process(arrivals())
    environment.process(blocks())
    start = time.perf_counter()
    environment.run(until=horizon)
    seconds = time.perf_counter() - start
    return {"requests_per_s": len(waits) / seconds, "service_wait": sum(waits) / len(waits), "requests": len(waits)}


def main(text: str) -> None:
    given = json.loads(text)
    rates = (given["arrival"], given["block_rate"], given["service_rate"], given["links"])
    found = {
        "ciw": run_ciw(*rates, given["horizon"] / 4),
        "simpy": run_simpy(*rates, given["block_size"], given["horizon"]),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
