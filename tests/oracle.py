"""How close is close enough: as close as the equations themselves get in the same dtype."""

import torch

FACTOR = {torch.float32: 4.0, torch.bfloat16: 2.0, torch.float16: 2.0}


def assert_as_accurate(got, exact, yardstick, *, usual=0.0, what=""):
    """Fail unless `got` errs at most FACTOR times as much as `yardstick`.

    exact:      the definition, computed in float64 from the same rounded inputs.
    yardstick:  the definition in `got`'s dtype: in 16 bits only x, weights, h and y are rounded to it, and
                the cell and all sums are float32. The rounding nobody can avoid.
                It must be shorter than float64, or its error is zero and so is the allowance.
    usual:      the largest error of the definition where every number was moved by a little, so that all
                roundings fall anew: of a few numbers one draw's error may be a tenth of the next one's, and
                which is lucky depends on the processor.
    The floor of one unit in the last place keeps a lucky, exact yardstick from demanding zero.
    """
    assert exact.dtype == torch.float64, f"{what}: the truth must be float64, got {exact.dtype}"
    assert got.dtype == yardstick.dtype != torch.float64, f"{what}: {got.dtype} measured by {yardstick.dtype}"
    assert got.shape == exact.shape, f"{what}: shape {tuple(got.shape)}, expected {tuple(exact.shape)}"
    if not got.numel():
        return
    assert torch.isfinite(got).all(), f"{what}: {(~torch.isfinite(got)).sum()} values are not finite"
    error = (got.double() - exact).abs().max()
    kind = torch.finfo(
        got.dtype
    )  # below its smallest normal number, units in the last place are all of one size
    floor = kind.eps * max(exact.abs().max(), torch.tensor(kind.smallest_normal, dtype=torch.float64))
    allowed = FACTOR[got.dtype] * max((yardstick.double() - exact).abs().max(), floor, usual)
    assert error <= allowed, f"{what}: error {error:.2e}, allowed {allowed:.2e} ({error / allowed:.1f}x)"


def assert_equations(got, exact, *, what=""):
    """Fail unless two float64 results agree: rounding is ~1e-13 and a wrong formula ~1e-3."""
    assert got.dtype == exact.dtype == torch.float64, f"{what}: {got.dtype} and {exact.dtype}"
    assert got.shape == exact.shape, f"{what}: shape {tuple(got.shape)}, expected {tuple(exact.shape)}"
    if got.numel():
        error = (got - exact).abs().max()
        assert error <= 1e-9, f"{what}: error {error:.2e}, allowed 1e-9"  # NaN lands here too


def assert_all_as_accurate(got, exact, yardstick, usual):
    """The same for dicts of tensors by name; what is None in one must be None in all."""
    assert got.keys() == exact.keys() == yardstick.keys()
    for what in got:
        wide = got[what].dtype if got[what].dtype != torch.float64 else None
        assert wide is not None, what
        assert_as_accurate(got[what], exact[what], yardstick[what], usual=usual[what], what=what)
