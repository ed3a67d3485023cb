"""Scores of the next token and their loss: in place, in bfloat16 and in clusters they are the softmax."""

import pytest
import torch

from longshort import engine
from longshort.nn import decoder as decoders
from longshort.nn.decoder import AdaptiveDecoder, Decoder, product


@pytest.mark.parametrize("V", [5, 40, 333])
def test_the_adaptive_softmax_is_a_distribution_and_its_losses_are_its_own(V):
    decoder, h = AdaptiveDecoder(16, V), torch.randn(7, 16)
    scores = decoder(h)
    torch.testing.assert_close(scores.exp().sum(-1), torch.ones(7))
    targets = torch.arange(7) % V
    torch.testing.assert_close(decoder.losses(h, targets), -scores.gather(1, targets[:, None])[:, 0])


@pytest.mark.parametrize("wide", [10, 1000])
def test_the_short_decoder_is_near_in_losses_and_gradients(monkeypatch, wide):
    monkeypatch.setattr("longshort.nn.decoder.WIDE", wide)
    h, targets = torch.randn(64, 16), torch.randint(0, 50, (64,))
    found = []
    for short in (False, True):
        torch.manual_seed(0)
        decoder, x = Decoder(16, 50, short=short), h.clone().requires_grad_()
        torch.nn.init.normal_(decoder.weight, std=0.3)
        loss = decoder.losses(x, targets).mean()
        loss.backward()
        found.append((loss.detach(), x.grad, decoder.weight.grad))
    for exact, short in zip(*found, strict=True):
        assert not torch.equal(exact, short)
        torch.testing.assert_close(exact, short, rtol=0.05, atol=2e-3)


@pytest.mark.parametrize("cast", [True, False])
def test_losses_of_a_decoder_in_bfloat16_are_float32(monkeypatch, cast):
    monkeypatch.setattr("longshort.nn.decoder.WIDE", 10)
    decoder, h = Decoder(16, 50).bfloat16(), torch.randn(7, 16).bfloat16()
    torch.nn.init.normal_(decoder.weight)
    torch.nn.init.normal_(decoder.bias)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=cast):
        losses, plain = (
            decoder.losses(h, torch.arange(7)),
            torch.no_grad()(decoder.losses)(h, torch.arange(7)),
        )
    assert losses.dtype == plain.dtype == torch.float32
    torch.testing.assert_close(losses, plain, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_the_gradient_is_made_in_place_of_short_scores(monkeypatch, dtype):
    monkeypatch.setattr("longshort.nn.decoder.WIDE", 10)
    h, targets = torch.randn(64, 16).to(dtype), torch.randint(0, 50, (64,))
    torch.manual_seed(0)
    decoder, x = Decoder(16, 50), h.clone().requires_grad_()
    torch.nn.init.normal_(decoder.weight, std=0.3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = decoder.losses(x, targets)
    assert "InPlace" in losses.grad_fn.name() and losses.dtype == torch.float32
    found = torch.autograd.grad(losses.mean(), [x, decoder.weight, decoder.bias])
    y = h.float().requires_grad_()
    exact = decoder.losses(y, targets)
    want = torch.autograd.grad(exact.mean(), [y, decoder.weight, decoder.bias])
    assert found[0].dtype == dtype
    for one, other in zip([losses, *found], [exact, *want], strict=True):
        torch.testing.assert_close(one.float(), other, rtol=0.05, atol=2e-3)


@pytest.mark.parametrize("by_engine", [engine.available(), False], ids=["engine", "torch"])
@pytest.mark.parametrize("kind", [torch.int64, torch.int32])
@pytest.mark.parametrize("M", [1, 63, 64, 150])
def test_the_gradient_in_place_of_the_scores_is_the_gradient(monkeypatch, M, kind, by_engine):
    """Against torch's cross entropy in float64, with another weight for each row of the loss."""
    monkeypatch.setattr("longshort.nn.decoder.WIDE", 10)
    monkeypatch.setattr(decoders, "ENGINE", by_engine)
    h, targets, rows = torch.randn(M, 16), torch.randint(0, 50, (M,)).to(kind), torch.rand(M)
    decoder = Decoder(16, 50)
    torch.nn.init.normal_(decoder.weight, std=0.5)
    torch.nn.init.normal_(decoder.bias)

    def found(decoder, h, rows):
        x = h.clone().requires_grad_()
        losses = decoder.losses(x, targets)
        gradients = torch.autograd.grad((losses * rows).sum(), [x, decoder.weight, decoder.bias])
        return losses.detach(), *gradients

    got = found(decoder, h, rows)
    with torch.no_grad():
        torch.testing.assert_close(decoder.losses(h, targets), got[0])
    want = found(decoder.double(), h.double(), rows.double())
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("by_engine", [engine.available(), False], ids=["engine", "torch.mm"])
def test_the_product_is_the_product_whatever_the_strides(monkeypatch, by_engine):
    monkeypatch.setattr(decoders, "ENGINE", by_engine)
    a, b, bias = torch.randn(37, 50), torch.randn(90, 50), torch.randn(90)
    want = a.double() @ b.double().t()
    for one in (a, a.t().contiguous().t()):
        for other in (b, b.t().contiguous().t()):
            torch.testing.assert_close(product(one, other).double(), want, rtol=1e-5, atol=1e-5)
            found = product(one, other, bias).double()
            torch.testing.assert_close(found, want + bias.double(), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_losses_without_a_gradient_need_few_scores_at_a_time(monkeypatch):
    decoder, h, targets = Decoder(16, 50), torch.randn(33, 16), torch.randint(0, 50, (33,))
    torch.nn.init.normal_(decoder.weight)
    whole, rows, plainly = decoder.losses(h, targets), [], decoder._plainly
    monkeypatch.setattr(decoders, "SCORES", 500)
    monkeypatch.setattr(decoder, "_plainly", lambda *pair: rows.append(len(pair[0])) or plainly(*pair))
    torch.testing.assert_close(decoder.losses(h, targets), whole)
    assert rows == [10, 10, 10, 3]


def test_a_second_derivative_of_the_wide_loss_raises():
    decoder, x = Decoder(4, 2000), torch.randn(3, 4, requires_grad=True)
    torch.nn.init.normal_(decoder.weight)
    total = decoder.losses(x, torch.arange(3)).square().sum()
    (first,) = torch.autograd.grad(total, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
