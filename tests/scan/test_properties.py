"""Laws that every variant obeys on every backend, each under the name by which docstrings promise it."""

import dataclasses

import pytest
import torch

from longshort.scan import State, lstm
from longshort.scan.plan import backends
from oracle import assert_equations
from scan.cases import ALONE, ON_THE_CPU, PAIRS, Case, each_backend, ids, refused

PLAIN = [c for c in ALONE if c.checkpoint_every is None]
SOME = PAIRS[::7]
"Every seventh pair: the formula itself is tested on all."


def without_masks(case):
    """The case in evaluation: masks count their steps from the start of a call."""
    return dataclasses.replace(case, training=False)


def rows(tensors, chosen):
    """The tensors of some sequences alone."""
    batched = ("x", "h", "c", "initial_h", "initial_c", "reset", "lengths")
    return {k: v[chosen] if k in batched else v for k, v in tensors.items()}


def steps(tensors, start, stop, state=None):
    part = dict(tensors) | ({} if state is None else state)
    part["x"] = tensors["x"][:, start:stop]
    if "reset" in part:
        part["reset"] = tensors["reset"][:, start:stop]
    if "lengths" in part:
        part["lengths"] = (tensors["lengths"] - start).clamp(0, stop - start)
    return part


@ids(PLAIN + SOME)
@each_backend
def test_two_halves_make_the_whole(case, backend):
    case = without_masks(case)
    refused(case, backend)
    tensors, k = case.make(), 3
    whole = case.run(tensors, backend=backend)
    order = [(k, case.T), (0, k)] if case.reverse else [(0, k), (k, case.T)]
    state, parts = None, []
    for start, stop in order:
        parts.append(case.run(steps(tensors, start, stop, state), backend=backend))
        state = {"h": parts[-1]["h_n"], "c": parts[-1]["c_n"]}
    for what, want in whole.items():
        in_time = parts[::-1] if case.reverse else parts
        got = parts[-1][what] if what in ("h_n", "c_n") else torch.cat([p[what] for p in in_time], dim=1)
        assert_equations(got, want, what=what)


@ids(PLAIN + SOME)
@each_backend
def test_a_batch_equals_its_sequences_one_by_one(case, backend):
    case = without_masks(case)
    refused(case, backend)
    tensors = case.make()
    whole = case.run(tensors, backend=backend)
    for n in range(case.N):
        for what, got in case.run(rows(tensors, slice(n, n + 1)), backend=backend).items():
            assert_equations(got, whole[what][n : n + 1], what=f"{what} of sequence {n}")


@ids([c for c in PLAIN if not c.lengths and not c.reset])
@each_backend
def test_a_reset_in_the_middle_equals_two_calls(case, backend):
    case = without_masks(case)
    refused(case, backend)
    tensors, k = case.make(), 4
    reset = torch.zeros(case.N, case.T, dtype=torch.bool)
    if case.reverse:
        reset[:, k - 1] = True
        first, second = (k, case.T), (0, k)
    else:
        reset[:, k] = True
        first, second = (0, k), (k, case.T)
    start = {"h": torch.randn_like(tensors["h"]), "c": torch.randn_like(tensors["c"])}
    given = dataclasses.replace(case, reset=True, initial=True)
    joined = given.run(
        tensors | {"reset": reset, "initial_h": start["h"], "initial_c": start["c"]}, backend=backend
    )
    one = case.run(steps(tensors, *first), backend=backend)
    two = case.run(steps(tensors, *second) | start, backend=backend)
    for what, got in joined.items():
        in_time = [two, one] if case.reverse else [one, two]
        want = two[what] if what in ("h_n", "c_n") else torch.cat([p[what] for p in in_time], dim=1)
        assert_equations(got, want, what=what)


@each_backend
def test_no_gradient_passes_back_through_a_reset(backend):
    case = Case("reset")
    tensors = case.make()
    x, h = tensors["x"].requires_grad_(), tensors["h"].requires_grad_()
    reset = torch.zeros(case.N, case.T, dtype=torch.bool)
    reset[1, 4] = True
    y = case.run(tensors | {"reset": reset}, backend=backend)["y"]
    dx, dh = torch.autograd.grad(y[:, 4:].sum(), (x, h))
    assert (dx[1, :4] == 0).all()
    assert (dh[1] == 0).all()
    assert (dx[0, :4] != 0).all()
    assert (dh[0] != 0).all()


@ids([c for c in PLAIN if c.lengths or c.why in ("ordinary", "reversed", "gate recurrence", "norm ba2016")])
@each_backend
def test_a_length_equals_a_shorter_call(case, backend):
    case = dataclasses.replace(without_masks(case), lengths=True)
    refused(case, backend)
    tensors = case.make()
    whole = case.run(tensors, backend=backend)
    for n, length in enumerate(tensors["lengths"].tolist()):
        one = rows(tensors, slice(n, n + 1)) | {"lengths": torch.tensor([length])}
        short = dataclasses.replace(case, lengths=False)
        alone = {k: v for k, v in steps(one, 0, length).items() if k != "lengths"}
        for what, want in short.run(alone, backend=backend).items():
            got = whole[what][n : n + 1]
            if what not in ("h_n", "c_n"):
                assert (got[:, length:] == 0).all(), f"{what}: the padding is not zero"
                got = got[:, :length]
            assert_equations(got, want, what=f"{what} of length {length}")


@pytest.mark.parametrize("reverse", [False, True])
@each_backend
def test_padding_is_neither_read_nor_given_a_gradient(backend, reverse):
    case = Case("lengths", lengths=True, reset=True, reverse=reverse)
    tensors = case.make()
    active = torch.arange(case.T) < tensors["lengths"][:, None]
    clean = case.differentiate(tensors, backend=backend)
    dirty = tensors | {
        "x": torch.where(active[..., None], tensors["x"], float("nan")),
        "reset": torch.where(active, tensors["reset"], True),
    }
    for what, got in case.differentiate(dirty, backend=backend).items():
        assert torch.equal(got, clean[what]), what
    assert (clean["dx"][~active] == 0).all()


@each_backend
def test_a_sequence_of_length_zero_returns_its_state(backend):
    case = Case("lengths", lengths=True)
    tensors = case.make()
    n = tensors["lengths"].tolist().index(0)
    out = case.run(tensors, backend=backend)
    assert torch.equal(out["h_n"][n], tensors["h"][n])
    assert torch.equal(out["c_n"][n], tensors["c"][n])


@each_backend
def test_the_reversed_direction_starts_at_the_true_end(backend):
    case = Case("reversed", reverse=True, lengths=True)
    tensors = case.make()
    got = case.run(tensors, backend=backend)
    for n, length in enumerate(tensors["lengths"].tolist()):
        one = rows(tensors, slice(n, n + 1))
        one["x"] = one["x"][:, :length].flip(1)
        del one["lengths"]
        want = Case("ordinary").run(one, backend=backend)
        assert_equations(got["y"][n : n + 1, :length], want["y"].flip(1), what=f"y of length {length}")
        assert_equations(got["h_n"][n : n + 1], want["h_n"], what=f"h of length {length}")


@ids(PLAIN + SOME)
@pytest.mark.parametrize("backend", [b.name for b in backends() if b.step is not None])
def test_a_prepared_step_equals_the_sequence(case, backend):
    case = dataclasses.replace(
        without_masks(case), reverse=False, reset=False, lengths=False, keep=None, initial=False
    )
    refused(case, backend)
    from longshort.scan import Options
    from longshort.scan.functional import gathered, prepared_step

    tensors = case.make()
    options = case.options()
    noise = options["noise"].evaluated
    prepared = Options(options["variant"], noise, training=False, backend=backend)
    whole = case.run(tensors, backend=backend)
    h, c = tensors["h"], tensors["c"]
    advance = prepared_step(prepared, gathered(prepared, **(tensors | {"x": tensors["x"][:, :1]})))
    for t in range(case.T):
        h, c = advance(tensors["x"][:, t], h, c)
        assert_equations(h, whole["y"][:, t], what=f"h of step {t}")
    assert_equations(c, whole["c_n"], what="c")


@each_backend
def test_kept_cells_and_gates_are_those_of_the_equations(backend):
    case = Case("all kept", keep="all")
    tensors = case.make()
    out = case.run(tensors, backend=backend)
    i, f, g, o = out["gates"].chunk(4, dim=-1)
    before = torch.cat((tensors["c"][:, None], out["cells"][:, :-1]), dim=1)
    assert_equations(f * before + i * g, out["cells"], what="cells")
    assert_equations(o * out["cells"].tanh(), out["y"], what="y")
    assert_equations(out["cells"][:, -1], out["c_n"], what="last cell")


@each_backend
@pytest.mark.parametrize("every", [1, 3, 7, 50])
@pytest.mark.parametrize("reverse", [False, True])
def test_segments_change_the_memory_and_not_the_numbers(backend, every, reverse):
    noise = {"variational_h": 0.2, "zoneout_c": 0.2, "recurrent_dropout": 0.2}
    case = Case("segments", noise=noise, reset=True, initial=True, lengths=True, reverse=reverse, keep="all")
    tensors = case.make()
    whole = case.differentiate(tensors, backend=backend)
    for what, got in case.differentiate(tensors, backend=backend, checkpoint_every=every).items():
        assert_equations(got, whole[what], what=what)


@pytest.mark.parametrize("backend", [*ON_THE_CPU, "definition"])
def test_segments_round_nothing_more_in_16_bits(backend):
    """The gradient of h goes from segment to segment as it is, and the rounding at each would add up."""
    tensors = Case("long", N=3, T=40, C=6, H=16).make(torch.bfloat16)
    tensors["bias"][16:32] += 3  # remembers all the steps
    whole = Case("long").differentiate(tensors, backend=backend)
    for what, got in Case("long").differentiate(tensors, backend=backend, checkpoint_every=1).items():
        apart = (got.double() - whole[what].double()).norm() / whole[what].double().norm()
        assert apart < torch.finfo(torch.bfloat16).eps / 16, what


def test_segments_keep_less_memory():
    from longshort.scan import plan

    tensors = Case("long", T=1000, H=16).make()
    whole, segmented = plan(**tensors), plan(**tensors, checkpoint_every=50)
    N, T, H = 3, 1000, 16
    assert whole.kept_bytes == 8 * 6 * N * T * H
    assert segmented.kept_bytes == 8 * (N * T * H + 2 * 20 * N * H)


def test_missing_states_are_the_initial_state():
    case = Case("given", reset=True, initial=True)
    tensors = case.make()
    named = tensors | {"h": tensors["initial_h"], "c": tensors["initial_c"]}
    absent = {k: v for k, v in tensors.items() if k not in ("h", "c")}
    for what, got in case.run(absent).items():
        assert torch.equal(got, case.run(named)[what]), what
    zeros = Case("ordinary")
    tensors = zeros.make()
    absent = {k: v for k, v in tensors.items() if k not in ("h", "c")}
    zero = {"h": torch.zeros_like(tensors["h"]), "c": torch.zeros_like(tensors["c"])}
    for what, got in zeros.run(absent).items():
        assert torch.equal(got, zeros.run(tensors | zero)[what]), what


def test_a_cell_in_float32_goes_on_exactly_in_16_bits():
    case = Case("ordinary", T=8)
    tensors = case.make(torch.bfloat16)
    tensors["c"] = tensors["c"].float()
    whole = case.run(tensors)
    half = case.run(steps(tensors, 0, 4))
    assert half["c_n"].dtype == torch.float32
    rest = case.run(steps(tensors, 4, 8, {"h": half["h_n"], "c": half["c_n"]}))
    assert torch.equal(torch.cat((half["y"], rest["y"]), dim=1), whole["y"])
    assert torch.equal(rest["c_n"], whole["c_n"])


def test_state_unpacks_like_a_pair():
    x, w_ih, w_hh = torch.zeros(2, 3, 1), torch.zeros(4, 1), torch.zeros(4, 1)
    y, state = lstm(x, w_ih, w_hh)
    h, c = state
    assert isinstance(state, State)
    assert state[0] is h
    assert y.shape == (2, 3, 1)
    assert c is state.c
