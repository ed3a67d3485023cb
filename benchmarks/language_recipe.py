"""A recipe from its text to its number.

    scripts/bench language-recipe NAME [--out runs/NAME] [--as-it-is] [FLAGS OF longshort train language]

Trains as `longshort train language --recipe NAME` does, on the text that the recipe is for, and writes
what came of it; the same command goes on with a run that was stopped. Time is what the training loop took
by the wall, with whatever else the machine did meanwhile. --as-it-is scores the best weights of a run that
was stopped, or still goes on, and trains no further.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

import record
from longshort.runs import Run
from longshort.tasks.language import LanguageModel, recipes, story

TEXTS = {
    "shakespeare": {"file": "text/tinyshakespeare.txt"},
    "char-rnn": {"file": "text/tinyshakespeare.txt"},
}
PTB = {"file": "text/ptb.train.txt", "valid": "text/ptb.valid.txt", "test": "text/ptb.test.txt"}
TARGETS = {
    "shakespeare": {
        "nats a character on 2 cores in an hour": 1.55,
        "nats a character of a model of at most 10.65 M weights": 1.47,
    },
    "zaremba-small": {"test perplexity": 114.5},
    "zaremba-medium": {"test perplexity": 82.7},
    "zaremba-large": {"test perplexity": 78.4},
}
GPU = "needs a GPU"
OPEN = {
    "zaremba-medium": GPU,
    "zaremba-large": GPU,
    "awd-lstm": GPU,
}


def trained(settings: story.TrainSettings, out: str, device: str) -> Run:
    story.train(settings, out, device=device)
    return Run.open(out, "language")


def reached(out: str) -> Run:
    run, model = Run.open(out, "language"), LanguageModel.load(out)
    story.recall(model, run)
    settings = story.TrainSettings.from_json(run.settings)
    run.write_json("scores.json", model.score(Path(settings.test or settings.file)).to_json())
    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=list(recipes()))
    parser.add_argument("--out", default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--as-it-is", action="store_true")
    story.TrainSettings.flags(parser)
    args = parser.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    texts = {name: str(record.data(path)) for name, path in TEXTS.get(args.name, PTB).items()}
    args.recipe = args.name
    settings = dataclasses.replace(story.TrainSettings.given(args, story.beneath(args)), **texts)
    out = args.out or f"runs/{args.name}"
    run = reached(out) if args.as_it_is else trained(settings, out, args.device)
    settings = story.TrainSettings.from_json(run.settings)
    unused = ("every", "max_steps") if settings.epochs else ()
    lines = run.read_metrics()
    found = {
        "recipe": recipes()[args.name],
        "target": TARGETS.get(args.name),
        "changed": {
            name: value
            for name, value in settings.to_json().items()
            if name not in (*texts, *unused, "recipe") and value != getattr(story.beneath(args), name)
        },
        "open": [
            f"{name}, {recipes()[name]['paper']}: {why}"
            for name, why in OPEN.items()
            if name != args.name and not (why == GPU and torch.cuda.is_available())
        ],
        "weights": sum(array.size for array in run.read_arrays("weights.safetensors")[0].values()),
        "steps": lines[-1]["step"],
        "passes": {"made": lines[-1]["step"] / lines[0]["step"], "of": settings.epochs}
        if settings.epochs
        else None,
        "best step": min(lines, key=lambda line: line["nats"])["step"],
        "minutes in the loop": lines[-1]["seconds"] / 60,
        "scores": run.read_json("scores.json"),
        "validations": [{k: line[k] for k in ("step", "loss", "nats", "seconds")} for line in lines],
    }
    print(record.write("language-recipe", found, f"language-{args.name}"))


if __name__ == "__main__":
    main()
