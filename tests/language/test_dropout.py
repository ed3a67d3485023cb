"""Dropout: its share, its mean, its gradient, and what is locked."""

import pytest
import torch

from longshort.tasks.language import dropout as module
from longshort.tasks.language.dropout import dropout

X = torch.ones(40, 50, 100)


@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.65, 0.95])
def test_the_share_is_silenced_and_the_mean_stays(rate, locked):
    torch.manual_seed(0)
    found = dropout(X, rate, True, locked=locked)
    count = X[:, :1].numel() if locked else X.numel()
    spread = (rate * (1 - rate) / count) ** 0.5
    assert abs((found == 0).float().mean().item() - rate) < 4 * spread + 1e-4
    assert found.mean().item() == pytest.approx(1, abs=4 * spread / (1 - rate) + 1e-4)
    assert len(found.unique()) == 2
    assert (found == found[:, :1]).all().item() is locked


def test_neighbours_know_nothing_of_each_other():
    """Four numbers share one draw: whether one is silenced must say nothing about the next three."""
    torch.manual_seed(0)
    kept = (dropout(X, 0.3, True).flatten() > 0).double()
    for far in (1, 2, 3, 4):
        together = torch.corrcoef(torch.stack([kept[:-far], kept[far:]]))[0, 1]
        assert abs(together.item()) < 0.01


def test_the_gradient_is_the_mask():
    x = X.clone().requires_grad_()
    found = dropout(x, 0.4, True)
    found.sum().backward()
    assert torch.equal(x.grad, found.detach())


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True)])
def test_nothing_is_silenced(rate, training):
    assert dropout(X, rate, training) is X


def test_the_seed_decides():
    def found(seed):
        torch.manual_seed(seed)
        return dropout(X, 0.5, True)

    assert torch.equal(found(1), found(1)) and not torch.equal(found(1), found(2))


def test_draws_of_every_size(monkeypatch):
    for size in (1, 2, 3, 5, 8):
        bits = module._sixteen_bits((size, 1))
        assert bits.shape == (size, 1) and bits.dtype == torch.int16
    many = module._sixteen_bits((400_000,)).double()
    assert abs(many.mean().item()) < 200 and many.min() < -32_700 and many.max() > 32_700
