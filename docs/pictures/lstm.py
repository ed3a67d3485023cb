"""Make the figures of docs/lstm.md from a cell that this script trains; the same bits every time.

    python docs/pictures/lstm.py

The task is to hold a number: numbers stream by, now and then one is marked, and the answer at every step is
the last marked one. A plain RNN and an LSTM of the same size learn it on 40 steps; the pictures show 120.
"""

from pathlib import Path

import matplotlib
import torch
from torch import nn

import longshort as ls
from longshort.nn import chrono

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
H, TRAIN, LONG, MARK = 8, 40, 120, 10
STEPS = 1500
BLUE, RED, GREY = "#1f5fa8", "#c0392b", "#888888"


def stream(N: int, T: int, rate: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x (N, T, 2), numbers and marks, and the last marked number (N, T), 0 before the first."""
    rng = torch.Generator().manual_seed(seed)
    numbers = 2 * torch.rand(N, T, generator=rng) - 1
    marks = torch.rand(N, T, generator=rng) < rate
    held, last = torch.zeros(N), []
    for t in range(T):
        held = torch.where(marks[:, t], numbers[:, t], held)
        last.append(held)
    return torch.stack((numbers, marks.float()), dim=2), torch.stack(last, dim=1)


class Reader(nn.Module):
    """A recurrent layer and one number read from it at every step."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(H, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Answers (N, T)."""
        return self.head(self.layer(x)[0])[..., 0]


def train(layer: nn.Module, steps: int) -> Reader:
    """Fit a layer to streams of TRAIN steps."""
    model = Reader(layer)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(steps):
        x, wanted = stream(64, TRAIN, 0.06, seed=step)
        loss = (model(x) - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return model.eval()


def one_mark(N: int = 1, number: float = 0.8, seed: int = 10_000) -> torch.Tensor:
    """(N, LONG, 2): one number marked at step MARK, then a stream that is to be ignored."""
    x, _ = stream(N, LONG, 0.0, seed)
    x[:, MARK, 0], x[:, MARK, 1] = number, 1
    return x


def influence(model: Reader) -> torch.Tensor:
    """(LONG,) the size of the derivative of the answer at step MARK + k by the marked number, mean of 64."""
    x = one_mark(64, seed=7).requires_grad_()
    answers, sizes = model(x).mean(0), torch.zeros(LONG)
    for t in range(MARK, LONG):
        (gradient,) = torch.autograd.grad(answers[t], x, retain_graph=True)
        sizes[t] = 64 * gradient[:, MARK, 0].abs().mean()
    return sizes


def save(figure: plt.Figure, name: str) -> None:
    """Write a figure beside this file."""
    figure.savefig(HERE / name, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def panel(width: float, height: float) -> tuple[plt.Figure, plt.Axes]:
    """One empty picture."""
    figure, axes = plt.subplots(figsize=(width, height))
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def draw_influence(rnn: Reader, lstm: Reader) -> None:
    """How much of the marked number is left in the answer."""
    figure, axes = panel(7, 2.8)
    for model, name, colour in ((rnn, "plain RNN", RED), (lstm, "LSTM", BLUE)):
        axes.semilogy(range(LONG - MARK), influence(model)[MARK:].clamp(min=1e-9), color=colour, label=name)
    axes.set(xlabel="steps since the number was marked", ylabel="|d answer / d number|", ylim=(1e-9, 10))
    axes.legend(frameon=False)
    save(figure, "lstm-influence.svg")


def draw_answers(rnn: Reader, lstm: Reader) -> None:
    """Three numbers, held by both."""
    figure, axes = panel(7, 2.4)
    with torch.no_grad():
        for number in (-0.8, 0.2, 0.8):
            x = one_mark(number=number)
            axes.axhline(number, color=GREY, linewidth=0.8, linestyle="--")
            axes.plot(rnn(x)[0], color=RED, label="plain RNN" if number > 0.5 else None)
            axes.plot(lstm(x)[0], color=BLUE, label="LSTM" if number > 0.5 else None)
    axes.axvline(TRAIN, color=GREY, linewidth=0.8, linestyle=":")
    axes.text(TRAIN + 1, -1.2, "sequences in training ended here", color=GREY, fontsize=8)
    axes.set(xlabel="step", ylabel="answer", ylim=(-1.3, 1.3))
    axes.legend(frameon=False, ncols=2, loc="upper right")
    save(figure, "lstm-answers.svg")


def draw_gates(lstm: Reader) -> None:
    """The four gates, the cell and the state of the unit that holds the most."""
    x, _ = stream(1, 60, 0.0, seed=11)
    x[0, 10], x[0, 35] = torch.tensor([0.8, 1.0]), torch.tensor([-0.8, 1.0])
    with torch.no_grad():
        y, _, kept = lstm.layer(x, keep="all")
    gates = dict(zip("ifgo", kept.gates[0, 0].chunk(4, dim=-1), strict=True))
    cells = kept.cells[0, 0]
    moved = (cells[15:34].mean(0) - cells[40:59].mean(0)).abs()
    unit = int((moved * gates["f"][15:34].mean(0) ** 20).argmax())  # it changed, and it holds
    rows = [
        ("x number", x[0, :, 0], GREY),
        ("x mark", x[0, :, 1], GREY),
        ("i input gate", gates["i"][:, unit], BLUE),
        ("f forget gate", gates["f"][:, unit], BLUE),
        ("g candidate", gates["g"][:, unit], BLUE),
        ("c cell", cells[:, unit], RED),
        ("o output gate", gates["o"][:, unit], BLUE),
        ("h state", y[0, :, unit], RED),
    ]
    figure, axes = plt.subplots(len(rows), 1, figsize=(7, 6.5), sharex=True)
    for one, (name, values, colour) in zip(axes, rows, strict=True):
        one.plot(values, color=colour)
        one.axhline(0, color=GREY, linewidth=0.5)
        one.set_ylabel(name, rotation=0, ha="right", va="center")
        one.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("step")
    save(figure, "lstm-gates.svg")


def main() -> None:
    """Train both, draw, and print the numbers of the page."""
    plt.rcParams["svg.hashsalt"] = "longshort"
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rnn = train(nn.RNN(2, H, batch_first=True), STEPS)
    torch.manual_seed(0)
    lstm = train(ls.LSTM(2, H, batch_first=True, init=chrono(TRAIN), backend="plain"), STEPS)
    draw_influence(rnn, lstm)
    draw_answers(rnn, lstm)
    draw_gates(lstm)
    numbers = torch.linspace(-0.9, 0.9, 64)
    x = torch.cat([one_mark(number=float(n), seed=k) for k, n in enumerate(numbers)])
    for name, model in (("plain RNN", rnn), ("LSTM", lstm)):
        size = influence(model)
        with torch.no_grad():
            error = (model(x) - numbers[:, None]).square().mean(0).sqrt()
        for later in (5, 25, 100):
            t = MARK + later
            print(f"{name:9}  {later:3} steps later  d answer / d number {size[t]:.1e}  error {error[t]:.2f}")


if __name__ == "__main__":
    main()
