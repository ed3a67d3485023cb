"""Models of which the answer is known: wired by hand, or trained in seconds."""

import torch
from torch import nn


class Reader(nn.Module):
    """A recurrent layer, and a linear answer at the last step or at every one."""

    def __init__(self, cell, C, H, K, every=False, **options):
        super().__init__()
        self.rnn = cell(C, H, batch_first=True, **options)
        self.out = nn.Linear(self.rnn.proj_size or H, K)
        self.every = every

    def forward(self, x):
        h = self.rnn(x)[0]
        return self.out(h if self.every else h[:, -1])


@torch.no_grad()
def zeroed(module):
    for weight in module.parameters():
        weight.zero_()
    return module


@torch.no_grad()
def latch():
    """One cell that is written where channel 1 is on, cleared where channel 2 is on, and kept otherwise.

    b_f = 20 - 40 reset, b_i = -20 + 40 flag, g = tanh(10 x), o ~ 1.
    """
    model = zeroed(Reader(nn.LSTM, 3, 1, 1).double())
    w, b = model.rnn.weight_ih_l0, model.rnn.bias_ih_l0
    b += torch.tensor([-20.0, 20.0, 0.0, 20.0])
    w[0, 1], w[1, 2], w[2, 0] = 40.0, -40.0, 10.0
    model.out.weight.fill_(2.0)
    return model


@torch.no_grad()
def leak(f, H=1):
    """Cells that keep the share f at every step and add half of tanh(x)."""
    model = zeroed(nn.LSTM(1, H, batch_first=True).double())
    logit = torch.log(torch.as_tensor(f, dtype=torch.float64) / (1 - torch.as_tensor(f, dtype=torch.float64)))
    model.bias_ih_l0[H : 2 * H] = logit
    model.weight_ih_l0[2 * H : 3 * H] = 1.0
    return model


@torch.no_grad()
def echo(k):
    """A plain RNN whose k + 1 units are a delay line: unit j holds the input of j steps ago."""
    model = zeroed(nn.RNN(1, k + 1, batch_first=True).double())
    model.weight_ih_l0[0, 0] = 0.01
    model.weight_hh_l0[1:, :-1] = torch.eye(k, dtype=torch.float64)
    return model


def trained(model, batch, loss, steps, lr=1e-2):
    """The model after some steps of Adam on fresh batches."""
    optimiser = torch.optim.Adam(model.parameters(), lr)
    for _ in range(steps):
        x, y = batch(64)
        optimiser.zero_grad()
        loss(model(x), y).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return model.eval()


def recall(L, rng):
    """Batches of: one symbol of +1 or -1 at step 0, noise for L steps; the answer is the symbol."""

    def batch(N):
        symbol = torch.randint(0, 2, (N,), generator=rng) * 2.0 - 1
        x = torch.zeros(N, L + 1, 2)
        x[:, 0, 0] = symbol
        x[:, :, 1] = 0.3 * torch.randn(N, L + 1, generator=rng)
        return x, symbol

    return batch


def adding(T, rng):
    """Batches of: T numbers, two of them marked, one in each half; the answer is their sum."""

    def batch(N):
        x = torch.zeros(N, T, 2)
        x[:, :, 0] = torch.rand(N, T, generator=rng)
        rows, half = torch.arange(N), T // 2
        marks = torch.stack(
            [torch.randint(0, half, (N,), generator=rng), torch.randint(half, T, (N,), generator=rng)]
        )
        for mark in marks:
            x[rows, mark, 1] = 1.0
        return x, (x[:, :, 0] * x[:, :, 1]).sum(1)

    return batch


class Embedded(nn.Module):
    """Numbers embedded, two layers, and a linear answer at every step."""

    def __init__(self, C, H, layers=2):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(C, 6), nn.ReLU())
        self.rnn = nn.LSTM(6, H, layers, batch_first=True)
        self.out = nn.Linear(H, 1)

    def forward(self, x):
        return self.out(self.rnn(self.embed(x))[0])[..., 0]


def early(T, rng):
    """Batches of a sensor, a flag that is shown at step 0 alone, and noise; the answer at every step is the
    sensor times the flag.
    """

    def batch(N):
        x = torch.randn(N, T, 3, generator=rng)
        x[:, :, 1] = 0
        x[:, 0, 1] = torch.randint(0, 2, (N,), generator=rng) * 2.0 - 1
        return x, x[:, :, 0] * x[:, :1, 1]

    return batch


def recent(T, rng):
    """Batches of a sensor and noise; the answer is s_t + s_{t-1} / 2 - s_{t-2} / 2."""

    def batch(N):
        x = torch.randn(N, T, 2, generator=rng)
        s = torch.cat((torch.zeros(N, 2), x[:, :, 0]), 1)
        return x, s[:, 2:] + 0.5 * s[:, 1:-1] - 0.5 * s[:, :-2]

    return batch
