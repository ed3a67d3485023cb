"""Words and characters a second: training, the decoder alone, and text that goes on, beside peers in turns.

    scripts/bench language-speed [--threads 2] [--rounds 6]

Training: 2 x 650 units, a vocabulary of 10,000, 20 streams, windows of 35, dropout 0.2, SGD with clipped
gradients. `examples` is the program that pytorch/examples describes as word_language_model, written
anew: torch.nn.LSTM, log-softmax and negative log-likelihood, weights moved by hand. `keras` is two LSTM
layers on Keras's torch backend, whose stateful layers fail in training there, so that each window begins
from zero. `ours` is the package's network and objective; `ours, short` has the decoder's product in
bfloat16 with sums in float32, the only row that is not float32 throughout. All are timed by the wall.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import record
from longshort.tasks.language.corpus import Corpus
from longshort.tasks.language.decoder import InPlace
from longshort.tasks.language.model import LanguageNetwork
from longshort.tasks.language.objective import LanguageObjective
from longshort.tasks.language.sampling import Sampling
from longshort.tasks.language.settings import LanguageSettings
from longshort.tasks.language.stepping import Manner, tokens
from longshort.train.optimisers import make_optimiser

H, V, N, T = 650, 10_000, 20, 35
Step = Callable[[], None]


def ours(short: bool) -> Step:
    settings = LanguageSettings(
        unit="word", embedding=H, hidden=H, layers=2, batch=N, window=T, dropout=0.2, dropout_input=0.2,
        optimiser="sgd", lr=1.0, weight_decay=0.0, clip=0.25, short_decoder=short, spread=0.1,
    )  # fmt: skip
    text = Corpus(np.random.default_rng(0).integers(0, V, 200_000), 1, Counter(), "")
    network, task, count = LanguageNetwork(V, settings), LanguageObjective(text, text, settings), [0]
    optimiser = make_optimiser(network, settings)

    def step() -> None:
        task.loss(network, task.batch(count[0])).backward()
        nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimiser.step()
        optimiser.zero_grad()
        count[0] += 1

    return step


class Example(nn.Module):
    """Embedding, dropout, torch.nn.LSTM, dropout, a product, log-softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.encoder = nn.Dropout(0.2), nn.Embedding(V, H)
        self.lstm, self.decoder = nn.LSTM(H, H, 2, dropout=0.2), nn.Linear(H, V)

    def forward(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        y, state = self.lstm(self.drop(self.encoder(x)), state)
        return functional.log_softmax(self.decoder(self.drop(y)).view(-1, V), dim=1), state


def examples() -> Step:
    model, loss = Example(), nn.NLLLoss()
    text = torch.randint(0, V, (400 * T + 1, N))
    held: list[Any] = [0, (torch.zeros(2, N, H), torch.zeros(2, N, H))]

    def step() -> None:
        k = held[0] * T % (400 * T - T)
        model.zero_grad()
        scores, state = model(text[k : k + T], tuple(part.detach() for part in held[1]))
        loss(scores, text[k + 1 : k + T + 1].view(-1)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        for weight in model.parameters():
            weight.data.add_(weight.grad, alpha=-1.0)
        held[:] = [held[0] + 1, state]

    return step


def keras_model() -> Step:
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(N, T), dtype="int32"),
            layers.Embedding(V, H),
            layers.Dropout(0.2),
            layers.LSTM(H, return_sequences=True),
            layers.Dropout(0.2),
            layers.LSTM(H, return_sequences=True),
            layers.Dropout(0.2),
            layers.Dense(V),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1.0, global_clipnorm=0.25), loss)
    x = np.random.default_rng(0).integers(0, V, (N, T + 1))
    return lambda: model.train_on_batch(x[:, :-1], x[:, 1:]) and None


def in_turns(steps: dict[str, Step], rounds: int, each: int) -> dict[str, list[float]]:
    """Milliseconds of a step: rounds over all, `each` steps in a row."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            step()  # the peer before it may have left threads spinning
            started = time.perf_counter()
            for _ in range(each):
                step()
            found[name].append((time.perf_counter() - started) / each * 1e3)
    return found


def training(rounds: int) -> dict[str, Any]:
    steps = {"ours": ours(False), "ours, short": ours(True), "examples": examples(), "keras": keras_model()}
    found = in_turns(steps, rounds, 3)
    ms = {name: statistics.median(times) for name, times in found.items()}
    best = min(ms["examples"], ms["keras"])
    return {
        "milliseconds a step": ms,
        "spread": {name: [min(times), max(times)] for name, times in found.items()},
        "words a second": {name: N * T / value * 1e3 for name, value in ms.items()},
        "times the better peer": {name: best / ms[name] for name in ("ours", "ours, short")},
    }


class Recomputed(torch.autograd.Function):
    """Cross entropy whose scores exist for some rows at a time, with their gradient, and never again."""

    @staticmethod
    def forward(ctx: Any, h: Any, w: Any, b: Any, y: Any, rows: int) -> Any:
        total, dh, dw, db = 0.0, torch.empty_like(h), torch.zeros_like(w), torch.zeros_like(b)
        for k in range(0, len(h), rows):
            part, want = h[k : k + rows], y[k : k + rows, None]
            scores = torch.addmm(b, part, w.t())
            log_sum = scores.logsumexp(1, keepdim=True)
            total = total + (log_sum - scores.gather(1, want)).sum()
            p = scores.sub_(log_sum).exp_()
            p.scatter_add_(1, want, -torch.ones_like(want, dtype=p.dtype))
            torch.mm(p, w, out=dh[k : k + rows])
            dw.addmm_(p.t(), part)
            db += p.sum(0)
        ctx.save_for_backward(dh, dw, db)
        return total / len(h)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        scale = gradient / len(ctx.saved_tensors[0])
        return *(part * scale for part in ctx.saved_tensors), None, None


def decoder(rounds: int, vocabulary: int = V) -> dict[str, Any]:
    """Loss and gradients from h: torch's own, with scores computed again in parts, in bfloat16, adaptive."""
    h = torch.randn(N * T, H, requires_grad=True)
    w = (0.05 * torch.randn(vocabulary, H)).requires_grad_()
    b, y = torch.zeros(vocabulary, requires_grad=True), torch.randint(0, vocabulary, (N * T,))
    adaptive = nn.AdaptiveLogSoftmaxWithLoss(H, vocabulary, [vocabulary // 25, vocabulary // 5])

    def clear() -> None:
        h.grad = w.grad = b.grad = None

    def whole() -> None:
        clear()
        functional.cross_entropy(functional.linear(h, w, b), y).backward()

    def in_place(short: bool) -> Step:
        def step() -> None:
            clear()
            InPlace.apply(h, w, b, y, short).mean().backward()

        return step

    def parts() -> None:
        clear()
        Recomputed.apply(h, w, b, y, 128).backward()

    def short() -> None:
        clear()
        scores = functional.linear(h.bfloat16(), w.bfloat16()).float() + b
        functional.cross_entropy(scores, y).backward()

    def clusters() -> None:
        clear()
        adaptive.zero_grad()
        adaptive(h, y).loss.backward()

    steps = {
        "cross entropy": whole,
        "cross entropy, bfloat16": short,
        "in parts of 128 rows": parts,
        "gradient in place": in_place(False),
        "gradient in place, bfloat16": in_place(True),
        "adaptive": clusters,
    }
    ms = {name: statistics.median(times) for name, times in in_turns(steps, rounds, 2).items()}
    scores = N * T * vocabulary
    held = {
        "cross entropy": 3 * 4 * scores,
        "in parts of 128 rows": 2 * 4 * 128 * vocabulary,
        "gradient in place": 4 * scores,
        "gradient in place, bfloat16": 2 * scores,
    }
    return {"vocabulary": vocabulary, "milliseconds": ms, "bytes of scores held at once": held}


@torch.no_grad()
def generation(vocabulary: int, threads: int, rounds: int) -> dict[str, Any]:
    """Tokens a second at 2 x 512, each read, scored and drawn."""
    units = 512
    network = LanguageNetwork(vocabulary, LanguageSettings(embedding=units, hidden=units, layers=2)).eval()
    lstm, embedding = nn.LSTM(units, units, 2).eval(), nn.Embedding(vocabulary, units)
    head, held = nn.Linear(units, vocabulary), [torch.zeros(1, 1, dtype=torch.long), None]

    def loop() -> None:
        y, held[1] = lstm(embedding(held[0]), held[1])
        held[0] = torch.multinomial(torch.softmax(head(y[0]) / 0.8, -1), 1)

    def started(stored: str) -> Step:
        texts = tokens(network, [np.array([0])], Manner(Sampling(), threads=threads, stored=stored))
        return lambda: next(texts) and None

    steps = {"torch.nn.LSTM": loop} | {
        f"ours, {form}": started(form) for form in ("full", "bfloat16", "int8")
    }
    ms = {name: statistics.median(times) for name, times in in_turns(steps, rounds, 100).items()}
    times = {name: ms["torch.nn.LSTM"] / value for name, value in ms.items()}
    return {
        "vocabulary": vocabulary,
        "tokens a second": {name: 1e3 / value for name, value in ms.items()},
        "times torch.nn.LSTM": times,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    import keras

    found: dict[str, Any] = {
        "targets": "1.4 times the better peer in training; 10 times torch.nn.LSTM in generation",
        "keras": f"{keras.__version__}, backend {keras.backend.backend()}",
        "generation": {f"{v}": generation(v, args.threads, args.rounds) for v in (65, V)},
        "decoder": decoder(args.rounds),
        "training": training(args.rounds),
    }
    ms, alone = found["training"]["milliseconds a step"], found["decoder"]["milliseconds"]
    found["decoder's share of a step"] = {
        "ours": alone["gradient in place"] / ms["ours"],
        "ours, short": alone["gradient in place, bfloat16"] / ms["ours, short"],
    }
    for part in ("generation", "decoder", "training", "decoder's share of a step"):
        print(part, found[part], flush=True)
    print(record.write("language-speed", found))


if __name__ == "__main__":
    main()
