"""M4 Hourly: 414 series, horizon 48, one global model; OWA as the competition measured it.

    scripts/bench m4-hourly [--seeds 1] [--holdout]

The model sees the competition's training part alone: its settings, its season and the step at which it
stops come from there. `--holdout` measures on the last 48 values of that part instead of the test part,
which is how the defaults were chosen.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time

import numpy as np

import record
from longshort import scores
from longshort.data import Columns, Series, SeriesTable, Step
from longshort.tasks import Forecaster

HORIZON, SEASON = 48, 24
PEERS = {"seasonal naive": 0.627, "Smyl's ES-RNN ensemble, the winner": 0.440}


def rows(name: str) -> dict[str, np.ndarray]:
    with open(record.data(f"series/{name}.csv"), newline="") as file:
        lines = list(csv.reader(file))[1:]
    return {line[0]: np.array([float(cell) for cell in line[1:] if cell]) for line in lines}


def table(values: dict[str, np.ndarray]) -> SeriesTable:
    none = (np.zeros(0),)
    series = [
        Series(name, np.arange(len(v)), v, np.zeros((len(v), 0)), np.zeros((len(v), 0)), *none)
        for name, v in values.items()
    ]
    return SeriesTable(tuple(series), Step(), Columns(target=("y",), id="unique_id"))


def measure(train: dict[str, np.ndarray], test: dict[str, np.ndarray], seed: int) -> dict[str, float]:
    started = time.perf_counter()
    model = Forecaster(horizon=HORIZON, season=SEASON, seed=seed)
    model.fit(table(train), quiet=False, device="cpu")
    forecast = model.predict(levels=(80, 95))
    seconds = time.perf_counter() - started
    truth, point = np.stack([test[name] for name in forecast.names]), forecast.median
    unit = np.array([scores.naive_scale(train[name], SEASON) for name in forecast.names])
    naive2 = np.stack([scores.naive2(train[name], HORIZON, SEASON) for name in forecast.names])
    smape, mase = scores.mean(scores.smape(truth, point)), scores.mean(scores.mase(truth, point, unit))
    yardstick = scores.mean(scores.smape(truth, naive2)), scores.mean(scores.mase(truth, naive2, unit))
    return {
        "seed": seed,
        "OWA": scores.owa(smape, mase, *yardstick),
        "sMAPE": smape,
        "MASE": mase,
        "Naive2 sMAPE": yardstick[0],
        "Naive2 MASE": yardstick[1],
        "coverage-80": scores.mean(scores.coverage(truth, *forecast.interval(80))),
        "coverage-95": scores.mean(scores.coverage(truth, *forecast.interval(95))),
        "steps": model.fitted.step,
        "best step": model.fitted.best_step,
        "seconds to fit and forecast": seconds,
        "seasons": model.plan.seasons,
        "transform": model.plan.transform,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--holdout", action="store_true")
    args = parser.parse_args()
    train, test = rows("m4-hourly-train"), rows("m4-hourly-test")
    if args.holdout:
        test = {name: values[-HORIZON:] for name, values in train.items()}
        train = {name: values[:-HORIZON] for name, values in train.items()}
    runs = []
    for seed in range(args.seeds):
        runs.append(measure(train, test, seed))
        print(runs[-1], flush=True)
    owa = [run["OWA"] for run in runs]
    print(
        f"OWA median {statistics.median(owa):.4f}, range {min(owa):.4f} to {max(owa):.4f}, {args.seeds} seeds"
    )
    if not args.holdout:
        content = {
            "target": "OWA <= 0.53 in under 600 s",
            "median": {key: statistics.median(run[key] for run in runs) for key in ("OWA", "sMAPE", "MASE")},
            "range": {"OWA": [min(owa), max(owa)]},
            "peers": PEERS,
            "runs": runs,
        }
        print(record.write("m4-hourly", content))


if __name__ == "__main__":
    main()
