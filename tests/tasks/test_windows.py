"""Windows hold the right rows, scaled by their own past; the network reads no row too many or too few."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from longshort.tasks.forecast.model import ForecastModel
from longshort.tasks.forecast.plan import make_plan
from longshort.tasks.forecast.settings import LEVELS, ForecastSettings
from longshort.tasks.forecast.windows import Panel, scale_of
from tasks.making import full_table, series, table, wave

SETTINGS = ForecastSettings(horizon=6, season=8, context=16, hidden=8)
PLACES = torch.tensor([15, 17])


@pytest.fixture(scope="module")
def parts():
    """A plan, its panel, an untrained model whose every weight matters, and one window."""
    torch.manual_seed(0)
    many = full_table()
    plan = make_plan(many, SETTINGS)
    panel = Panel(many, plan)
    model = ForecastModel(plan, SETTINGS).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn_like(weight)
    windows, scale = panel.cut([1], [60], 20)
    return plan, panel, model, windows, scale


def test_a_window_holds_the_rows_it_says(parts):
    plan, panel, _, windows, scale = parts
    one = panel.table.series[1]
    rows = np.arange(60 - 16 - plan.lookback, 60 - 16 + 20)
    wanted = np.full(len(rows), np.nan)
    wanted[rows >= 0] = one.target[rows[rows >= 0]]
    values = windows.values.numpy()[0].astype(float) * scale.size + scale.location
    known = windows.known.numpy()[0] > 0
    assert np.array_equal(known, ~np.isnan(wanted))
    np.testing.assert_allclose(values[known], wanted[known], rtol=1e-6)
    context = one.target[44:60]
    assert scale.location == pytest.approx(np.nanmean(context))
    assert scale.size == pytest.approx(np.nanmean(np.abs(context - np.nanmean(context))))
    name, mean, deviation = plan.numeric["future"][0]
    assert name == "heat"
    heat = windows.ahead.numpy()[0, :, 0] * deviation + mean
    np.testing.assert_allclose(heat, one.future[44 : 44 + 26, 0], rtol=1e-5, atol=1e-6)
    assert np.array_equal(windows.ahead_codes.numpy()[0, :, 0], one.future[44 : 44 + 26, 1] + 1)
    assert np.array_equal(windows.seen_codes.numpy()[0, :, 0], one.past[44 : 44 + 20, 1] + 1)


def test_truth_is_what_follows(parts):
    _, panel, _, _, scale = parts
    truth = panel.truth([1], np.array([[60, 62]]), [66], scale).numpy()[0].astype(float)
    values = panel.table.series[1].target
    np.testing.assert_allclose(truth[0] * scale.size + scale.location, values[60:66], rtol=1e-6)
    np.testing.assert_allclose(truth[1, :4] * scale.size + scale.location, values[62:66], rtol=1e-6)
    assert np.isnan(truth[1, 4:]).all()  # row 66 is where the known part ends


def test_the_scale_is_that_of_the_context_alone():
    values = wave(100)
    changed = values.copy()
    changed[60:] += 1e4
    changed[: 60 - 16] -= 1e4
    plan = make_plan(table(series(values)), SETTINGS)
    scales = [Panel(table(series(v)), plan).cut([0], [60], 20)[1] for v in (values, changed)]
    assert scales[0].location == scales[1].location and scales[0].size == scales[1].size


@pytest.mark.parametrize(
    ("context", "size"),
    [([5.0, 5, 5], 0.5), ([0.0, 0, 0], 1.0), ([np.nan, np.nan, np.nan], 1.0), ([1.0, 3, np.nan], 1.0)],
)
def test_no_context_divides_by_zero(context, size):
    assert scale_of(np.array([context])).size == pytest.approx(size)


def gradients(parts, place, step):
    """|d answer| / d each input, of the quantiles at one place for one step ahead."""
    _, _, model, windows, _ = parts
    inputs = {
        name: getattr(windows, name).clone().requires_grad_()
        for name in ("values", "seen", "ahead", "static")
    }
    moved = type(windows)(**({f: getattr(windows, f) for f in windows.__dataclass_fields__} | inputs))
    answer = model(moved, PLACES)[0, place, step].sum()
    found = torch.autograd.grad(answer, list(inputs.values()), allow_unused=True)
    return {name: g[0].abs() for name, g in zip(inputs, found, strict=True)}


def check_dependence(parts, place, step):
    """Fail unless an answer depends on all of the past that it should, and on nothing else."""
    plan, _, _, windows, _ = parts
    now = int(PLACES[place])
    found = gradients(parts, place, step)
    values = found["values"]
    assert (values[plan.lookback + now + 1 :] == 0).all(), "the future of the target is read"
    assert values[plan.lookback + now] > 0, "the newest observation is not used"
    assert (found["seen"][now + 1 :] == 0).all(), "the future of a past covariate is read"
    assert found["seen"][now].sum() > 0, "the newest past covariate is not used"
    assert found["static"].sum() > 0, "the static covariates are not used"
    ahead = found["ahead"].sum(-1) > 0
    target = now + 1 + step
    assert ahead[target], "the covariate of the step itself is not used"
    others = ahead[now + 1 : target].any() or ahead[target + 1 :].any()
    assert not others, "a known covariate moves the forecast of another step"
    assert windows.known[0, plan.lookback + now] == 1


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("step", [0, 3, 5])
def test_an_answer_depends_on_the_past_and_on_nothing_else(parts, place, step):
    check_dependence(parts, place, step)


def rolled(name, by, dim):
    """Windows whose part `name` is moved by some steps: what an off-by-one makes of them."""
    return lambda w: replace(w, **{name: getattr(w, name).roll(by, dim)})


WRONG = {
    "the target moved back": ("future of the target", rolled("values", -1, 1)),
    "the newest value dropped": ("newest observation", rolled("values", 1, 1)),
    "past covariates moved back": ("future of a past covariate", rolled("seen", -1, 1)),
    "the newest covariates dropped": ("past covariate", rolled("seen", 1, 1)),
    "known covariates moved back": ("of the step itself", rolled("ahead", -1, 1)),
    "known covariates a step late": ("of the step itself", rolled("ahead", 1, 1)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_alignments_are_caught(parts, wrong):
    plan, panel, model, windows, scale = parts
    message, distort = WRONG[wrong]
    with pytest.raises(AssertionError, match=message):
        check_dependence((plan, panel, lambda w, p: model(distort(w), p), windows, scale), 0, 3)


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_never_cross(parts, seed):
    _, _, _, windows, _ = parts
    torch.manual_seed(seed)
    with torch.no_grad():
        wild = ForecastModel(parts[0], SETTINGS).eval()
        for weight in wild.parameters():
            weight.copy_(3 * torch.randn_like(weight))
        quantiles = wild(windows, PLACES)
    assert quantiles.shape == (1, 2, 6, len(LEVELS))
    assert (quantiles.diff(dim=-1) >= 0).all()


def test_the_untrained_median_lies_among_the_naive_forecasts(parts):
    plan, _, _, windows, _ = parts
    torch.manual_seed(0)
    with torch.no_grad():
        model = ForecastModel(plan, SETTINGS).eval()
        candidates = model._candidates(windows, PLACES)
        median = model(windows, PLACES)[..., len(LEVELS) // 2]
    assert (median >= candidates.amin(-1) - 0.3).all() and (median <= candidates.amax(-1) + 0.3).all()


def test_candidates_are_the_naive_forecasts():
    """One step and one season of them written out, on a series without gaps."""
    values = wave(100)
    plan = make_plan(table(series(values)), SETTINGS)
    windows, scale = Panel(table(series(values)), plan).cut([0], [60], 16)
    found = ForecastModel(plan, SETTINGS)._candidates(windows, torch.tensor([15]))[0, 0].double().numpy()
    found = found * scale.size + scale.location
    known = values[:60]
    growth = known[-8:].mean() - known[-16:-8].mean()
    for k in range(1, 7):
        season = known[59 + k - 8]
        wanted = [
            known[59],
            season,
            known[59 + k - 16] + 2 * growth,
            season + growth,
            season + known[59] - known[51],
        ]
        np.testing.assert_allclose(found[k - 1], wanted, rtol=1e-5)


def test_candidates_fall_back_where_values_are_missing():
    values = wave(100)
    values[[53, 59]] = np.nan  # the season's place of the second step, and the last value
    plan = make_plan(table(series(values)), SETTINGS)
    windows, scale = Panel(table(series(values)), plan).cut([0], [60], 16)
    found = ForecastModel(plan, SETTINGS)._candidates(windows, torch.tensor([15]))[0, 0].double().numpy()
    found = found * scale.size + scale.location
    assert np.isfinite(found).all()
    assert found[0, 0] == pytest.approx(values[58], rel=1e-5)
    assert found[1, 1] == pytest.approx(values[45], rel=1e-5)
    assert found[2, 4] == pytest.approx(values[54], rel=1e-5)  # no distance from the season can be told
