"""The loop, on a problem small enough to check everything about it."""

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn

from longshort.errors import BackendError, Diverged, RunError, SettingError
from longshort.runs import Run
from longshort.train import FitSettings, Validation, fit, reached
from longshort.train.checkpoint import Place, load_best
from longshort.train.fit import step_seed
from longshort.train.optimisers import OPTIMISERS, SCHEDULES, learning_rate, make_optimiser
from longshort.train.progress import followed

SETTINGS = FitSettings(max_steps=40, warmup=5, lr=0.05, every=10, patience=10, seed=3)


class Line:
    """y = 3 x - 1 from noisy points, by a layer with dropout before it."""

    metric, unit, size = "error", "points", 16

    def __init__(self, seed=3, at=None):
        self.seed, self.at = seed, at or {}

    def batch(self, step):
        if step in self.at:
            self.at[step]()
        random = np.random.default_rng((self.seed, step))
        x = random.normal(size=(16, 1)).astype("float32")
        return torch.from_numpy(x), torch.from_numpy(3 * x - 1)

    def loss(self, model, batch):
        return (model(batch[0]) - batch[1]).square().mean()

    def validate(self, model):
        assert not model.training and not torch.is_grad_enabled()
        x = torch.linspace(-1, 1, 8)[:, None].to(next(model.parameters()).device)
        losses = (model(x) - 3 * x + 1).square()[:, 0]
        return Validation({"error": losses.mean().item()}, losses.double().cpu().numpy())


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))


def make_run(folder):
    return Run.create(folder, "line", {})


def weights(module):
    return torch.cat([value.flatten() for value in module.state_dict().values()])


def lines(run):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in run.read_metrics()]


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_it_learns_and_keeps_what_it_reports():
    module = network()
    with torch.no_grad():
        before = Line().validate(module.eval()).losses.mean()
    fitted = fit(module, Line(), SETTINGS, quiet=True)
    assert fitted.step == 40 and not fitted.interrupted and not module.training
    with torch.no_grad():
        after = Line().validate(module).losses.mean()
    assert after == pytest.approx(fitted.best, rel=1e-6)
    assert after < 0.2 * before


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("stop_at", [0, 9, 10, 25, 39])
def test_an_interrupted_run_continued_is_the_uninterrupted_one(tmp_path, stop_at, average):
    settings = replace(SETTINGS, average=average)
    whole, parts = network(), network()
    fit(whole, Line(), settings, run=make_run(tmp_path / "whole"), quiet=True)
    first = fit(parts, Line(at={stop_at: interrupt}), settings, run=make_run(tmp_path / "parts"), quiet=True)
    assert first.interrupted and first.step == stop_at + 1
    parts = network(seed=99)  # a new process knows nothing but the folder
    second = fit(parts, Line(), settings, run=make_run(tmp_path / "parts"), quiet=True)
    assert second.step == 40 and not second.interrupted
    assert torch.equal(weights(parts), weights(whole))
    assert lines(Run.open(tmp_path / "parts")) == lines(Run.open(tmp_path / "whole"))


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    found = []
    for seed in (3, 3, 4):
        module = network()
        fit(module, Line(seed), FitSettings(max_steps=20, every=10, seed=seed), quiet=True)
        found.append(weights(module))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_the_callers_random_numbers_are_left_alone():
    module = network()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    fit(module, Line(), SETTINGS, quiet=True)
    assert torch.equal(torch.rand(3), expected)


def test_interrupted_before_a_first_validation_it_has_the_last_weights():
    module, expected = network(), network()
    fitted = fit(module, Line(at={4: interrupt}), replace(SETTINGS, every=40), quiet=True)
    assert (fitted.step, fitted.best_step, fitted.best) == (5, 5, float("inf"))
    assert not torch.equal(weights(module), weights(expected))


def test_interrupted_before_a_first_validation_a_run_keeps_the_last_weights_until_then(tmp_path):
    settings, module = replace(SETTINGS, every=10), network()
    run = make_run(tmp_path / "run")
    fit(module, Line(at={4: interrupt}), settings, run=run, about={"kind": "line"}, quiet=True)
    loaded = network(seed=99)
    about = load_best(run, loaded)
    assert torch.equal(weights(loaded), weights(module))
    assert (about["kind"], about["step"], about["score"]) == ("line", 5, None)
    fit(network(seed=99), Line(at={10: interrupt}), settings, run=run, quiet=True)
    about = load_best(run, loaded)
    assert about["step"] == 10 and about["score"] is not None


@pytest.mark.parametrize("in_a_run", [False, True])
@pytest.mark.parametrize("settings", [{"optimiser": "nt-asgd"}, {"average": 0.9}], ids=["nt-asgd", "average"])
def test_interrupted_before_a_first_validation_it_has_what_would_have_been_validated(
    tmp_path, settings, in_a_run
):
    module, validated = network(), network()
    run = make_run(tmp_path / "run") if in_a_run else None
    interrupted_at_5 = replace(SETTINGS, every=40, schedule="constant", **settings)
    fit(module, Line(at={4: interrupt}), interrupted_at_5, run=run, quiet=True)
    fit(validated, Line(at={4: interrupt}), replace(interrupted_at_5, every=5), quiet=True)
    assert torch.equal(weights(module), weights(validated))
    assert not torch.equal(weights(module), weights(network()))


def test_what_takes_long_is_followed_by_lines(capsys, monkeypatch):
    monkeypatch.setattr("longshort.train.progress.Lines.seconds", 0.0)
    assert list(followed(range(4), "reading")) == [0, 1, 2, 3]
    assert capsys.readouterr().err == "reading: 0%\nreading: 25%\nreading: 50%\nreading: 75%\n"
    assert list(followed(range(4), "reading", quiet=True)) == [0, 1, 2, 3]
    assert capsys.readouterr().err == ""


def test_a_second_interrupt_is_not_swallowed():
    before = signal.getsignal(signal.SIGINT)

    def twice():
        interrupt()
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        fit(network(), Line(at={2: twice}), SETTINGS, quiet=True)
    assert signal.getsignal(signal.SIGINT) is before


def test_it_stops_when_nothing_gets_better():
    settings = FitSettings(max_steps=500, lr=1e-12, every=5, patience=3, caution=0.5)
    fitted = fit(network(), Line(), settings, quiet=True)
    assert fitted.step == 5 + 3 * 5 and fitted.best_step == 5


@pytest.mark.parametrize(
    ("losses", "independent", "caution", "better"),
    [
        ([0.9, 1.9, 2.9], 3, 0.0, True),
        ([0.9, 1.9, 2.9], 3, 2.0, True),  # the same gain everywhere: no error of the difference
        ([1.3, 1.6, 2.8], 3, 0.0, True),
        ([1.3, 1.6, 2.8], 3, 2.0, False),  # a gain on average, within its error
        ([1.3, 1.6, 2.8], 300, 2.0, True),  # the same, from more evidence
        ([1.0, 2.0, 3.0], 3, 0.0, False),
    ],
)
def test_what_counts_as_better(losses, independent, caution, better):
    place = Place(step=1)
    assert place.better(np.array([1.0, 2.0, 3.0]), 3, caution)
    place.advance(0.5)
    assert place.better(np.array(losses), independent, caution) is better
    assert (place.best_step, place.stale) == ((2, 0) if better else (1, 1))


def test_the_mean_of_the_weights_is_what_is_kept():
    """Against the running mean written out over the weights after each step."""
    seen = []

    class Watched(Line):
        def loss(self, model, batch):
            seen.append(weights(model).clone())
            return super().loss(model, batch)

    module = network()
    fit(module, Watched(), FitSettings(max_steps=6, every=6, warmup=0, average=0.3), quiet=True)
    last = network()
    fit(last, Line(), FitSettings(max_steps=6, every=6, warmup=0), quiet=True)
    mean = seen[0]
    for step, after in enumerate([*seen[1:], weights(last)]):
        decay = min(0.3, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * after
    torch.testing.assert_close(weights(module), mean)


def test_the_learning_rate_rises_then_falls():
    settings = FitSettings(lr=0.1, warmup=10, max_steps=100)
    rates = [learning_rate(settings, step) for step in range(100)]
    assert np.argmax(rates) == 9
    assert rates[0] == pytest.approx(0.01, rel=0.01) and rates[-1] == pytest.approx(0.1 * 0.0595, rel=0.01)
    assert len({step_seed(seed, step) for seed in range(5) for step in range(1000)}) == 5000


def test_metrics_are_lines_of_json(tmp_path):
    run = make_run(tmp_path / "run")
    fit(network(), Line(), SETTINGS, run=run, quiet=True)
    found = run.read_metrics()
    assert [line["step"] for line in found] == [10, 20, 30, 40]
    assert set(found[0]) == {"step", "loss", "lr", "error", "seconds"}


def test_the_best_weights_are_kept_not_the_last(tmp_path):
    class Worse(Line):
        calls = 0

        def validate(self, model):
            self.calls += 1
            return Validation({"error": float(self.calls)}, np.full(4, float(self.calls)))

    kept = {}
    run = make_run(tmp_path / "run")
    module = network()
    fit(
        module,
        Worse(at={10: lambda: kept.update(at_10=weights(module).clone())}),
        SETTINGS,
        run=run,
        quiet=True,
    )
    assert torch.equal(weights(module), kept["at_10"])
    arrays, about = run.read_arrays("weights.safetensors")
    assert about == {"step": 10, "score": 1.0}
    assert np.array_equal(arrays["0.bias"], module.state_dict()["0.bias"].numpy())


def test_a_resumed_run_says_where_it_goes_on(tmp_path, capfd):
    interrupted(tmp_path / "run")
    capfd.readouterr()
    run = make_run(tmp_path / "run")
    fit(network(), Line(), SETTINGS, run=run)
    assert capfd.readouterr().err.splitlines()[0] == "going on from step 16"
    fit(network(), Line(), SETTINGS, run=run)
    assert "going on" not in capfd.readouterr().err


def test_progress_names_the_metric_and_the_throughput(tmp_path, capfd, monkeypatch):
    from longshort.train import progress

    monkeypatch.setattr(progress.Lines, "seconds", 0.0)
    run = make_run(tmp_path / "run")
    fit(network(), Line(), SETTINGS, run=run)
    first, *_, last = capfd.readouterr().err.splitlines()
    assert first.startswith("step 1/40  loss ") and first.endswith(" s left")
    score = run.read_metrics()[-1]["error"]  # of the last validation, not of the one before
    assert last.startswith(f"step 40/40  error {score:.4f} (best ") and last.endswith(" points/s  0 s left")


def test_the_last_line_has_the_last_validation_s_score(tmp_path, capfd):
    run = make_run(tmp_path / "run")
    settings = replace(SETTINGS, max_steps=30)
    fit(network(), Line(), settings, run=run)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"step 30/30  error {run.read_metrics()[-1]['error']:.4f} (best ")
    fit(network(), Line(), settings, run=run)
    assert capfd.readouterr().err == ""


GOALS = [(None, 40), (0.0, 40), (1e9, 10), ("second", 20)]


@pytest.mark.parametrize(("goal", "steps"), GOALS, ids=[str(goal) for goal, _ in GOALS])
def test_it_stops_at_the_first_validation_that_reaches_the_goal(tmp_path, goal, steps):
    plain = make_run(tmp_path / "plain")
    settings = replace(SETTINGS, lr=0.02)
    fit(network(), Line(), settings, run=plain, quiet=True)
    scores = [line["error"] for line in plain.read_metrics()]
    assert scores[1] < scores[0]
    wanted = replace(settings, goal=scores[1] + 1e-6 if goal == "second" else goal)
    run, module = make_run(tmp_path / "run"), network()
    fitted = fit(module, Line(), wanted, run=run, quiet=True)
    assert fitted.step == steps and not fitted.interrupted
    assert [line["error"] for line in run.read_metrics()] == scores[: steps // 10]
    again = network(1)
    assert fit(again, Line(), wanted, run=run, quiet=True).step == steps
    torch.testing.assert_close(weights(again), weights(module), atol=0, rtol=0)


def test_on_a_cpu_adamw_steps_in_one_pass_and_elsewhere_as_torch_chooses(monkeypatch):
    asked, make, fitting = [], make_optimiser, import_module("longshort.train.fit")
    monkeypatch.setattr(
        fitting, "make_optimiser", lambda *a, fused: asked.append(fused) or make(*a, fused=fused)
    )
    one, other = network(), network()
    fit(one, Line(), SETTINGS, quiet=True, device="cpu")
    monkeypatch.setattr(fitting, "make_optimiser", lambda *a, fused: make(*a))
    fit(other, Line(), SETTINGS, quiet=True, device="cpu")
    torch.testing.assert_close(weights(one), weights(other), rtol=1e-4, atol=1e-6)
    assert asked == [True] and make(network(), SETTINGS).defaults["fused"] is None


def test_tensorboard_gets_the_metrics(tmp_path):
    pytest.importorskip("tensorboard")
    run = make_run(tmp_path / "run")
    settings = FitSettings(max_steps=10, every=5, tensorboard=True)
    fit(network(), Line(), settings, run=run, quiet=True)
    written = list(run.path("tensorboard").iterdir())
    assert len(written) == 1 and written[0].stat().st_size > 300


def test_a_loss_that_is_not_finite():
    class Broken(Line):
        def loss(self, model, batch):
            return super().loss(model, batch) * float("nan" if not self.at else 1)

    with pytest.raises(SettingError) as raised:
        fit(network(), Broken(), SETTINGS, quiet=True)
    assert str(raised.value) == (
        "fit: loss and gradient must stay finite, and at step 0 the loss is nan and the gradient's norm "
        "nan. Lower `lr` or `clip`, or look for extreme values in the data. "
        "No validation came before, so the weights are those that this training began with."
    )


@pytest.mark.parametrize("in_a_run", [False, True])
@pytest.mark.parametrize("diverged_at", [3, 14])
def test_a_diverged_module_has_the_weights_that_the_error_names(tmp_path, in_a_run, diverged_at):
    class Broken(Line):
        def loss(self, model, batch):
            return super().loss(model, batch) * self.factor

    def breaks():
        broken.factor = float("inf")

    module, best, broken = network(), network(), Broken(at={diverged_at: breaks})
    broken.factor = 1.0
    run = make_run(tmp_path / "run") if in_a_run else None
    with pytest.raises(Diverged) as raised:
        fit(module, broken, SETTINGS, run=run, quiet=True)
    if diverged_at > SETTINGS.every:
        fit(best, Line(at={10: interrupt}), SETTINGS, quiet=True)
        assert str(raised.value).endswith("The weights of the best validation (step 10) are kept.")
    assert torch.equal(weights(module), weights(best))
    assert not module.training


def test_a_gradient_that_is_not_finite_reaches_no_checkpoint(tmp_path):
    class Steep(Line):
        def loss(self, model, batch):
            loss = super().loss(model, batch)
            if self.at:
                loss.register_hook(lambda gradient: gradient * float("inf"))
            return loss

    run = make_run(tmp_path / "run")
    fit(network(), Line(at={12: interrupt}), SETTINGS, run=run, quiet=True)
    with pytest.raises(
        SettingError, match=r"at step 13 the loss is [0-9.]+ and the gradient's norm (nan|inf)"
    ):
        fit(network(), Steep(at={-1: die}), SETTINGS, run=run, quiet=True)
    assert reached(run) == 13
    assert all(np.isfinite(array).all() for array in run.read_arrays("last.safetensors")[0].values())


def test_devices():
    with pytest.raises(SettingError) as raised:
        fit(network(), Line(), SETTINGS, device="gpu")
    assert str(raised.value) == "fit: `device` must be one of 'auto', 'cpu', 'cuda', 'mps', got 'gpu'."
    if not torch.cuda.is_available():
        with pytest.raises(BackendError) as raised:
            fit(network(), Line(), SETTINGS, device="cuda")
        assert str(raised.value) == (
            "fit: `device` 'cuda' is not available on this machine. Use 'cpu' or 'auto'."
        )


def interrupted(folder):
    run = make_run(folder)
    fit(network(), Line(at={15: interrupt}), SETTINGS, run=run, quiet=True)
    return run


def test_a_checkpoint_of_another_module(tmp_path):
    run = interrupted(tmp_path / "run")
    with pytest.raises(RunError) as raised:
        fit(nn.Linear(1, 1), Line(), SETTINGS, run=run, quiet=True)
    assert str(raised.value) == (
        f"{run.path('last.safetensors')}: holds the weights of another model: "
        "`0.bias` must be absent, got (8,)."
    )


def test_a_truncated_checkpoint(tmp_path):
    run = interrupted(tmp_path / "run")
    path = run.path("last.safetensors")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunError, match=f"^{path}: is damaged or is no safetensors file: "):
        fit(network(), Line(), SETTINGS, run=run, quiet=True)


def test_a_checkpoint_without_a_place(tmp_path):
    run = interrupted(tmp_path / "run")
    arrays, _ = run.read_arrays("last.safetensors")
    run.write_arrays("last.safetensors", arrays, {"other": 1})
    with pytest.raises(RunError) as raised:
        fit(network(), Line(), SETTINGS, run=run, quiet=True)
    assert str(raised.value) == (
        f"{run.path('last.safetensors')}: is no checkpoint of a training: its place is missing."
    )


KILLED = """
    import os, sys, time
    sys.path.insert(0, {tests!r})
    from train.test_fit import Line, SETTINGS, fit, make_run, network

    saves, fsync = [0], os.fsync

    def slow(handle):
        saves[0] += 1
        if saves[0] == {stop}:
            os.truncate(handle, os.fstat(handle).st_size // 2)
            print("saving", flush=True)
            time.sleep(60)
        fsync(handle)

    run = make_run({folder!r})
    os.fsync = slow
    fit(network(), Line(), SETTINGS, run=run, quiet=True)
"""


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_killed_in_the_middle_of_saving(tmp_path, stop):
    """SIGKILL while a checkpoint is half-written: the one before it survives, and the run can go on."""
    tests = os.path.dirname(os.path.dirname(__file__))
    source = textwrap.dedent(KILLED.format(tests=tests, folder=str(tmp_path / "run"), stop=stop + 2))
    child = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"saving\n"
    child.kill()
    child.wait()
    child.stdout.close()
    assert child.returncode == -signal.SIGKILL
    run = make_run(tmp_path / "run")
    assert any(path.suffix == ".part" for path in run.folder.iterdir())
    run.read_arrays("weights.safetensors")
    run.read_arrays("last.safetensors")
    resumed, whole = network(seed=5), network()
    fit(resumed, Line(), SETTINGS, run=run, quiet=True)
    fit(whole, Line(), SETTINGS, quiet=True)
    assert torch.equal(weights(resumed), weights(whole))


class Counting(Line):
    """A line that also carries a number from step to step, which makes each loss depend on those before."""

    def __init__(self, at=None):
        super().__init__(at=at)
        self.number = torch.zeros(())

    def loss(self, model, batch):
        self.number = (0.5 * self.number + batch[0].sum()).detach()
        return super().loss(model, batch) * (1 + 0.01 * self.number.sin())

    def carried(self):
        return {"number": self.number}

    def carry(self, tensors):
        self.number = tensors["number"]

    def share(self, step):
        return 0.5 if step % 3 == 0 else 1.0


class Forgetful(Counting):
    def carried(self):
        return {"number": torch.zeros(())}


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_optimiser_and_schedule_resumes_exactly_with_what_is_carried(tmp_path, optimiser, schedule):
    settings = replace(SETTINGS, optimiser=optimiser, schedule=schedule, decay_every=7, nonmono=1, every=5)
    whole, parts = network(), network()
    fit(whole, Counting(), settings, run=make_run(tmp_path / "whole"), quiet=True)
    fit(parts, Counting(at={22: interrupt}), settings, run=make_run(tmp_path / "parts"), quiet=True)
    parts = network(seed=99)
    fit(parts, Counting(), settings, run=make_run(tmp_path / "parts"), quiet=True)
    assert torch.equal(weights(parts), weights(whole))
    assert lines(Run.open(tmp_path / "parts")) == lines(Run.open(tmp_path / "whole"))


def test_a_checkpoint_that_forgets_what_is_carried_is_found_out(tmp_path):
    whole = network()
    fit(whole, Counting(), SETTINGS, quiet=True)
    fit(network(), Forgetful(at={22: interrupt}), SETTINGS, run=make_run(tmp_path / "run"), quiet=True)
    parts = network(seed=99)
    fit(parts, Counting(), SETTINGS, run=make_run(tmp_path / "run"), quiet=True)
    assert not torch.equal(weights(parts), weights(whole))


def test_a_share_scales_the_rate_of_its_step():
    found = []

    class Half(Counting):
        def share(self, step):
            return 0.5

    plain = FitSettings(max_steps=3, every=3, warmup=0, optimiser="sgd", schedule="constant", lr=0.02)
    for task, settings in ((Half(), plain), (Counting(), replace(plain, lr=0.01))):
        task.share = task.share if isinstance(task, Half) else (lambda step: 1.0)
        module = network()
        fit(module, task, settings, quiet=True)
        found.append(weights(module))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [1, 1, 1, 1, 1, 1]),
        ("linear", [1, 1 - 0.95 / 6, 1 - 0.95 / 3, 1 - 0.95 / 2, 1 - 0.95 * 2 / 3, 1 - 0.95 * 5 / 6]),
        ("decay", [1, 1, 1, 0.1, 0.1, 0.01]),
        ("plateau", [0.01] * 6),
    ],
)
def test_the_schedules(schedule, rates):
    settings = FitSettings(lr=1.0, warmup=0, max_steps=6, schedule=schedule, hold=3, decay=0.1, decay_every=2)
    assert [learning_rate(settings, step, cuts=2) for step in range(6)] == pytest.approx(rates)


def test_half_a_cosine():
    settings = FitSettings(lr=1.0, warmup=0, max_steps=1000, schedule="cosine")
    assert [learning_rate(settings, step) for step in (0, 500, 1000)] == pytest.approx([1, 0.525, 0.05])


def test_asgd_begins_to_average_when_the_validation_stops_getting_better():
    """Against the plain mean written out; the validation is made to be worse from the third one on."""
    seen = []

    class Watched(Line):
        calls = 0

        def loss(self, model, batch):
            seen.append(weights(model).clone())
            return super().loss(model, batch)

        def validate(self, model):
            self.calls += 1
            score = [5.0, 4.0, 4.5, 4.6, 3.0][self.calls - 1]
            seen_here.append(weights(model).clone())
            return Validation({"error": score}, np.full(4, score))

    seen_here = []
    settings = FitSettings(
        max_steps=10, every=2, warmup=0, optimiser="nt-asgd", nonmono=1, lr=0.05, schedule="constant"
    )
    module, last = network(), network()
    fit(module, Watched(), settings, quiet=True)
    fit(last, Line(), replace(settings, optimiser="sgd", every=10), quiet=True)
    after = [*seen[1:], weights(last)]  # the weights after each step
    assert torch.equal(seen_here[2], after[5])  # 4.5 is not worse than 5, the best of those before the last
    assert torch.equal(seen_here[3], after[7])  # 4.6 is worse than 4: from here on the mean
    torch.testing.assert_close(weights(module), torch.stack(after[8:10]).mean(0))


def test_a_checkpoint_is_written_between_validations_when_time_has_passed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["longshort.train.fit"], "SAVE_AFTER", 0.0)
    run = make_run(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        fit(network(), Line(at={7: die}), replace(SETTINGS, every=40), run=run, quiet=True)
    assert reached(run) == 7
    whole, parts = network(), network(seed=99)
    fit(whole, Line(), replace(SETTINGS, every=40), quiet=True)
    fit(parts, Line(), replace(SETTINGS, every=40), run=run, quiet=True)
    assert torch.equal(weights(parts), weights(whole))


def die():
    raise KeyboardInterrupt
