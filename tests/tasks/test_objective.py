"""The loss, the batches and the calibration."""

import numpy as np
import pytest
import torch

from longshort.tasks.forecast.objective import ForecastObjective, pinball, quantile_loss, widening
from longshort.tasks.forecast.plan import cut, make_plan
from longshort.tasks.forecast.settings import LEVELS, ForecastSettings
from tasks.making import full_table, series, table, wave

SETTINGS = ForecastSettings(horizon=6, season=8, context=16, batch=64)
TAU = torch.tensor(LEVELS)


def test_the_loss_is_the_pinball_loss():
    quantiles = torch.randn(5, 4, len(LEVELS)).sort(-1).values
    truth = torch.randn(5, 4)
    truth[2, 1] = float("nan")
    total, count = 0.0, 0
    for n in range(5):
        for t in range(4):
            if (n, t) != (2, 1):
                error = truth[n, t] - quantiles[n, t]
                total += (2 * torch.where(error > 0, TAU * error, (TAU - 1) * error)).mean().item()
                count += 1
    assert quantile_loss(quantiles, truth).item() == pytest.approx(total / count, rel=1e-5)


def test_the_loss_is_least_at_the_true_quantiles():
    truth = torch.linspace(-1, 1, 2001)
    right = torch.quantile(truth, TAU).expand(2001, -1)
    best = quantile_loss(right, truth)
    for wrong in (right + 0.1, right - 0.1, 1.3 * right, 0.7 * right):
        assert quantile_loss(wrong, truth) > best


def test_a_missing_truth_has_no_gradient():
    quantiles = torch.zeros(2, len(LEVELS), requires_grad=True)
    pinball(quantiles, torch.tensor([1.0, float("nan")])).sum().backward()
    assert (quantiles.grad[0] != 0).all() and (quantiles.grad[1] == 0).all()


def test_batches_depend_on_seed_and_step_alone_and_never_reach_the_validation():
    many = full_table()
    plan = make_plan(many, SETTINGS)
    objective = ForecastObjective(many, plan, SETTINGS)
    first, again, other = (objective.batch(step) for step in (4, 4, 5))
    assert torch.equal(first.windows.values, again.windows.values)
    assert first.windows.values.shape != other.windows.values.shape or not torch.equal(
        first.windows.values, other.windows.values
    )
    changed = full_table()
    for one in changed:
        one.target.flags.writeable = True
        one.target[cut(len(one), SETTINGS) :] = 1e9
    same = ForecastObjective(changed, plan, SETTINGS).batch(4)
    assert torch.equal(first.truth.nan_to_num(-1), same.truth.nan_to_num(-1))
    assert not first.truth.isnan().all(-1).all(), "a batch has something to learn from"


def test_the_validation_covers_its_part_and_nothing_else():
    many = table(series(wave(200)))
    objective = ForecastObjective(many, make_plan(many, SETTINGS), SETTINGS)
    truths = torch.cat([b.truth for b in objective.validation])
    assert len(truths) == 200 - 6 - 160 + 1 and not truths.isnan().any()
    assert objective.independent == pytest.approx(40 / 6)


@pytest.mark.parametrize(("factor", "expected"), [(0.5, 1.0), (1.0, 1.0), (2.0, 1 + 1 * 12 / 16)])
def test_intervals_are_widened_never_narrowed(factor, expected):
    random = np.random.default_rng(0)
    truth = torch.from_numpy(factor * random.normal(size=(4000, 1)))
    import statistics

    normal = statistics.NormalDist()
    quantiles = torch.tensor([normal.inv_cdf(level) for level in LEVELS], dtype=torch.float64)
    found = widening(quantiles.expand(4000, 1, -1), truth, independent=12)
    assert found == pytest.approx(expected, abs=0.05)
