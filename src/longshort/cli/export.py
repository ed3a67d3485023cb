"""Write the model of a run in another format, and check the copy against the original.

    longshort export runs/load --to onnx                    runs/load/model.onnx: rows in, quantiles out
    longshort export runs/load --to onnx --streaming        runs/load/step.onnx: one more row, with the state
    longshort export runs/load --to runtime                 runs/load/model: both for longshort.runtime
    longshort export runs/load --to keras --out load.keras  the LSTM of the model, as a Keras model
    longshort export runs/load --to torch                   its weights, for torch.nn.LSTM.load_state_dict

The file appears under its name only after the check passed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

ENDINGS = {"onnx": (".onnx",), "keras": (".keras", ".h5"), "torch": (".safetensors",), "runtime": ("",)}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the run and the format."""
    parser.add_argument("folder", metavar="RUN", help="a run folder")
    parser.add_argument("--to", choices=sorted(ENDINGS), required=True, help="the format")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="the file to write. Default: model.* in RUN, and step.onnx with --streaming.",
    )
    parser.add_argument(
        "--streaming",
        action="store_true",
        help="for ONNX: the graph of one step, whose state goes in and comes out",
    )
    parser.add_argument(
        "--weights",
        choices=("float32", "bfloat16", "int8"),
        default="float32",
        help="for the runtime: how it keeps the LSTM's weights (default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a file, or an exported model, that is there"
    )


def run(args: argparse.Namespace) -> None:
    """Export."""
    from ..errors import SettingError
    from ..exchange import export
    from ..exchange.exporting import load_model

    name = "step" if args.streaming else "model"
    endings = ENDINGS[args.to]
    path = args.out or Path(args.folder) / f"{name}{endings[0]}"
    if path.suffix not in endings:
        other = next((to for to, its in ENDINGS.items() if path.suffix in its and path.suffix), None)
        if other is not None:
            raise SettingError(f"--out names a file of --to {other}, got {str(path)!r} with --to {args.to}.")
        path = path.with_name(path.name + endings[0])
    model, options = load_model(args.folder), {"weights": args.weights, "overwrite": args.overwrite}
    print(export(model, path, streaming=args.streaming, **options))
