"""Words and characters a second: training, the decoder alone, and text that goes on, beside peers in turns.

    scripts/bench language-speed [--threads 2] [--rounds 6]                   everything at once
    scripts/bench language-speed --part training --seconds 50 [--anew]        as many rounds as fit, added

A round is each peer once, and each round begins with another peer. With --part a call adds its rounds to
those that the result file has of the part, so that a machine need be kept quiet for a minute at a time; the
parts are training, decoder, generation-65 and generation-10000. --anew forgets the part's earlier rounds, and
what another machine, thread count or version measured is forgotten of itself. A result is the median of all.

Training: 2 x 650 units, a vocabulary of 10,000, 20 streams, windows of 35, dropout 0.2, SGD with clipped
gradients. `examples` is the program that pytorch/examples describes as word_language_model, written
anew: torch.nn.LSTM, log-softmax and negative log-likelihood, weights moved by hand. `keras` is two LSTM
layers on Keras's torch backend, whose stateful layers fail in training there, so that each window begins
from zero. `ours` is the package's network and objective; `ours, short` has the decoder's product in
bfloat16 with sums in float32; rows named bf16-mixed run under autocast, as with `--precision bf16-mixed`, and
ours is set beside the best of all peers there. All others are float32 throughout. All are timed by the wall.
The bound is what the products of a step take at the operations a second that a core reaches out of its cache.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import sys
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
from longshort import engine
from longshort.nn.decoder import InPlace
from longshort.tasks.language.corpus import Corpus
from longshort.tasks.language.model import LanguageNetwork
from longshort.tasks.language.objective import LanguageObjective
from longshort.tasks.language.sampling import Sampling
from longshort.tasks.language.settings import LanguageSettings
from longshort.tasks.language.stepping import Manner, tokens
from longshort.train.optimisers import make_optimiser

H, V, N, T = 650, 10_000, 20, 35
DECODER = 2 * H * V * N * T * 3
LSTM = 2 * (2 * 4 * H * (H + H)) * N * T * 3
"""Multiplications and additions of a training step: one product forward and two back."""
STARTED = time.monotonic()
Step = Callable[[], None]
Times = dict[str, list[float]]
"""Peer -> milliseconds of a step in each round."""


def ours(short: bool) -> Step:
    settings = LanguageSettings(
        unit="word", embedding=H, hidden=H, layers=2, batch=N, window=T, dropout=0.2, dropout_input=0.2,
        optimiser="sgd", lr=1.0, weight_decay=0.0, clip=0.25, short_decoder=short, spread=0.1,
    )  # fmt: skip
    text = Corpus(np.random.default_rng(0).integers(0, V, 200_000), 1, Counter(), "")
    network, task, count = LanguageNetwork(V, settings), LanguageObjective(text, text, settings), [0]
    optimiser = make_optimiser(network, settings, fused=True)

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


def in_turns(steps: dict[str, Step], each: int, rounds: int, until: float | None, before: Times) -> Times:
    """Add rounds to those before: each peer's mean of `each` steps in a row, beginning with the next peer.

    Args:
        steps: peer -> what is timed.
        each: steps in a row.
        rounds: how many rounds, without `until`.
        until: seconds from the program's start in which every further round but the first must fit.
        before: the rounds there are.
    """
    found = {name: list(before.get(name, ())) for name in steps}
    for step in steps.values():
        step()
    made, longest = 0, 0.0
    while made < rounds if until is None else not made or time.monotonic() - STARTED + longest < until:
        begun, made = time.monotonic(), made + 1
        first = len(next(iter(found.values()))) % len(steps)
        for name in [*steps, *steps][first : first + len(steps)]:
            steps[name]()  # the peer before it may have left threads spinning
            started = time.perf_counter()
            for _ in range(each):
                steps[name]()
            found[name].append(round((time.perf_counter() - started) / each * 1e3, 4))
        longest = max(longest, time.monotonic() - begun)
    return found


def medians(found: Times) -> dict[str, float]:
    return {name: statistics.median(times) for name, times in found.items()}


def training() -> tuple[dict[str, Step], int]:
    peers = {"examples": examples(), "keras": keras_model(), "examples, bf16-mixed": mixed(examples())}
    return {"ours": ours(False), "ours, short": ours(True), "ours, bf16-mixed": mixed(ours(True)), **peers}, 3


def mixed(step: Step) -> Step:
    """The same under autocast."""

    def under() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            step()

    return under


def of_training(found: Times, core: float) -> dict[str, Any]:
    ms = medians(found)
    best, peak = min(ms["examples"], ms["keras"]), core * torch.get_num_threads()
    least = (LSTM + DECODER) / peak * 1e3
    return {
        "milliseconds a step": ms,
        "spread": {name: [min(times), max(times)] for name, times in found.items()},
        "words a second": {name: N * T / value * 1e3 for name, value in ms.items()},
        "times the better peer": {
            **{name: best / ms[name] for name in ("ours", "ours, short")},
            "ours, bf16-mixed": min(best, ms["examples, bf16-mixed"]) / ms["ours, bf16-mixed"],
        },
        "bound": {
            "operations of the LSTM's products": LSTM,
            "operations of the decoder's products": DECODER,
            "operations a second at the peak of these cores": peak,
            "milliseconds of both at the peak": least,
            "times the better peer at the peak": best / least,
            "share of the peak": {name: least / ms[name] for name in ("ours", "examples", "keras")},
        },
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


def decoder() -> tuple[dict[str, Step], int]:
    """Loss and gradients from h: torch's own, with scores computed again in parts, in bfloat16, adaptive."""
    h = torch.randn(N * T, H, requires_grad=True)
    w = (0.05 * torch.randn(V, H)).requires_grad_()
    b, y = torch.zeros(V, requires_grad=True), torch.randint(0, V, (N * T,))
    adaptive = nn.AdaptiveLogSoftmaxWithLoss(H, V, [V // 25, V // 5])

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
    return steps, 2


def of_decoder(found: Times, core: float) -> dict[str, Any]:
    scores = N * T * V
    held = {
        "cross entropy": 3 * 4 * scores,
        "in parts of 128 rows": 2 * 4 * 128 * V,
        "gradient in place": 4 * scores,
        "gradient in place, bfloat16": 2 * scores,
    }
    return {"vocabulary": V, "milliseconds": medians(found), "bytes of scores held at once": held}


def generation(vocabulary: int) -> tuple[dict[str, Step], int]:
    """Tokens at 2 x 512, each read, scored and drawn."""
    units, threads = 512, torch.get_num_threads()
    network = LanguageNetwork(vocabulary, LanguageSettings(embedding=units, hidden=units, layers=2)).eval()
    lstm, embedding = nn.LSTM(units, units, 2).eval(), nn.Embedding(vocabulary, units)
    head, held = nn.Linear(units, vocabulary), [torch.zeros(1, 1, dtype=torch.long), None]

    @torch.no_grad()
    def loop() -> None:
        y, held[1] = lstm(embedding(held[0]), held[1])
        held[0] = torch.multinomial(torch.softmax(head(y[0]) / 0.8, -1), 1)

    def started(stored: str) -> Step:
        texts = tokens(network, [np.array([0])], Manner(Sampling(), threads=threads, stored=stored))
        return lambda: next(texts) and None

    return {"torch.nn.LSTM": loop} | {
        f"ours, {form}": started(form) for form in ("full", "bfloat16", "int8")
    }, 100


def of_generation(found: Times, core: float) -> dict[str, Any]:
    ms = medians(found)
    return {
        "tokens a second": {name: 1e3 / value for name, value in ms.items()},
        "times torch.nn.LSTM": {name: ms["torch.nn.LSTM"] / value for name, value in ms.items()},
    }


Part = tuple[Callable[[], tuple[dict[str, Step], int]], Callable[[Times, float], dict[str, Any]]]
PARTS: dict[str, Part] = {
    "generation-65": (lambda: generation(65), of_generation),
    f"generation-{V}": (lambda: generation(V), of_generation),
    "decoder": (decoder, of_decoder),
    "training": (training, of_training),
}


def earlier(threads: int) -> dict[str, Any]:
    """What the result file holds, if this machine and these versions made it."""
    path = record.RESULTS / "language-speed.json"
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text())
    now = (record.machine(), threads, torch.__version__)
    return content if now == (content["machine"], content["threads"], content["versions"]["torch"]) else {}


def summed_up(measured: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Every part's numbers: of those measured here their medians, of the others what the file holds."""
    found = {name: before[name] for name in ("generation", "decoder", "training") if name in before}
    for part, each in measured.items():
        group, _, one = part.partition("-")
        numbers = PARTS[part][1](each["milliseconds"], each["peak of a core"])
        found[group] = {**found.get(group, {}), one: numbers} if one else numbers
    if {"training", "decoder"} <= set(found):
        ms, alone = found["training"]["milliseconds a step"], found["decoder"]["milliseconds"]
        found["decoder's share of a step"] = {
            "ours": alone["gradient in place"] / ms["ours"],
            "ours, short": alone["gradient in place, bfloat16"] / ms["ours, short"],
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--part", choices=list(PARTS))
    parser.add_argument("--seconds", type=float, help="of this call; rounds are begun as long as they fit")
    parser.add_argument("--anew", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    asked = [args.part] if args.part else list(PARTS)
    before = earlier(args.threads) if args.part else {}
    measured: dict[str, Any] = {
        part: each for part, each in before.get("measured", {}).items() if not (args.anew and part in asked)
    }
    for part in asked:
        steps, each = PARTS[part][0]()
        so_far = measured.get(part, {"calls": [], "milliseconds": {}, "peak of a core": 0.0})
        times = in_turns(steps, each, args.rounds, args.seconds, so_far["milliseconds"])
        measured[part] = {
            "calls": [*so_far["calls"], " ".join(sys.argv[1:])],
            "peak of a core": max(so_far["peak of a core"], engine.peak()),
            "milliseconds": times,
        }
    found = {
        "targets": "1.4 times the better peer in training; 10 times torch.nn.LSTM in generation",
        "keras": f"{importlib.metadata.version('keras')}, backend {os.environ['KERAS_BACKEND']}",
        **summed_up(measured, before),
        "measured before, not in these calls": sorted(set(PARTS) - set(measured)) if before else [],
        "measured": measured,
    }
    for name in ("generation", "decoder", "training", "decoder's share of a step"):
        print(name, found.get(name), flush=True)
    print(record.write("language-speed", found))


if __name__ == "__main__":
    main()
