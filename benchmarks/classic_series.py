"""Sunspots, electricity demand and air passengers: the last fifth of each, stride 1, no refit, five seeds.

    scripts/bench classic-series [--seeds 5] [--only taylor]

One set of defaults serves all three; only horizon and season are given. Every window of the last 20 % is
forecast from what lies before it by a model fitted to the first 80 %, and MASE is measured in the units of
those 80 %. The package's defaults were chosen with these three series in view.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

import record
from longshort.data import read
from longshort.tasks import Forecaster

SERIES = {
    "monthly-sunspots": {"target": "Sunspots", "season": 132, "horizon": 36},
    "taylor": {"target": "Y", "season": 336, "horizon": 336},
    "AirPassengers": {"target": "#Passengers", "season": 12, "horizon": 12},
}


def measure(name: str, seeds: int) -> dict[str, object]:
    choice = SERIES[name]
    table = read(record.data(f"series/{name}.csv"), target=choice["target"])
    earlier, later = table.split(last=0.2)
    runs = []
    for seed in range(seeds):
        started = time.perf_counter()
        model = Forecaster(horizon=choice["horizon"], season=choice["season"], seed=seed)
        model.fit(earlier, quiet=True, device="cpu")
        fitted = time.perf_counter() - started
        found = model.score(later)
        naive = found.scores["seasonal naive"]["MASE"]
        runs.append(
            {
                "seed": seed,
                "MASE": found["MASE"],
                "seasonal naive": naive,
                "ratio": found["MASE"] / naive,
                "coverage-80": found["coverage-80"],
                "coverage-95": found["coverage-95"],
                "sMAPE": found["sMAPE"],
                "steps": model.fitted.step,
                "best step": model.fitted.best_step,
                "seconds to fit": fitted,
            }
        )
        line = {key: round(value, 3) for key, value in runs[-1].items()}
        print(name, line, flush=True)
    middle = {
        key: statistics.median(run[key] for run in runs)
        for key in ("MASE", "ratio", "coverage-80", "coverage-95")
    }
    spread = {
        key: [float(np.min([r[key] for r in runs])), float(np.max([r[key] for r in runs]))] for key in middle
    }
    plan = model.plan
    derived = {"seasons": plan.seasons, "context": plan.context, "transform": plan.transform}
    return {
        **choice,
        "windows": len(found.names),
        "derived": derived,
        "median": middle,
        "range": spread,
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=list(SERIES))
    args = parser.parse_args()
    names = [args.only] if args.only else list(SERIES)
    results = {name: measure(name, args.seeds) for name in names}
    for name, result in results.items():
        print(name, "median", {key: round(value, 3) for key, value in result["median"].items()})
    if args.only is None:
        print(
            record.write(
                "classic-series", {"target": "ratio <= 0.90, coverage-80 in [0.70, 0.90]", "series": results}
            )
        )


if __name__ == "__main__":
    main()
