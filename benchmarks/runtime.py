"""The runtime beside onnxruntime, OpenVINO and torch: single steps, streams, many streams, the cold start.

    scripts/bench runtime [--rounds K] [--threads N ...]

Each contestant runs in a process of its own, as its users would have it, and the processes take turns, in the
opposite order every second round. One LSTM with torch's initial weights; float32 but where short weights are
named. A number is the median of a process's own repetitions, then the median over the rounds, with the least
and the most beside it; a ratio is that of one round, beside the best peer of the same round.

step        one step of one sequence whose state goes on: new x in, y out, and the state kept. A peer's state
            comes out of one call and goes into the next; "bound" keeps it in the peer's own memory. "no
            state" leaves it at zero inside: cheaper than any use, as nothing goes on. Ours "alone" is the
            engine without the stream's checks
sequence    1,000 steps of one sequence at once
streams     one step of 1,000 sequences together
start       from the start of the process to the first output, and the resident memory then
accuracy    of short weights after 200 steps, as a share of the outputs' root mean square
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {"small": (64, 128), "wide": (256, 512)}
FORMS = ("float32", "bfloat16", "int8")
SIZE = {"float32": 4, "bfloat16": 2, "int8": 1}
"""Bytes of a weight."""
T, STREAMS = 1000, 1000
BEST, CHEAPEST = (
    "times as fast as the best peer",
    "times as fast as the cheapest call of a peer, without state",
)
CONTESTANTS = ("longshort", "onnxruntime", "openvino", "torch")
Found = Iterator[tuple[str, str, Callable[[], object]]]
"""What is measured, who does it, and what to call."""


def inputs(C: int) -> tuple[Any, Any, Any]:
    """One row, one sequence (1, T, C), one row for each stream."""
    x = np.random.default_rng(0).standard_normal((STREAMS, C)).astype(np.float32)
    return x[:1], x[None, :T], x


def longshort(folder: Path, threads: int) -> Found:
    """The runtime's streams, and the engine alone."""
    from longshort import engine, runtime

    for name, (C, H) in SIZES.items():
        row, sequence, rows = inputs(C)
        for form in FORMS:
            model = runtime.load(folder / name, weights=form, threads=threads)
            stream, step = model.stream(), model.stack.places[0][0].step
            zero = np.zeros((1, H), np.float32)
            move = step.moving(zero.copy(), zero.copy())
            yield f"step {name}", f"longshort {form}", lambda stream=stream, x=row[0]: stream.step(x)
            yield f"step {name}", f"alone {form}", lambda move=move, x=row: move(x)
            yield (
                f"sequence {name}",
                f"longshort {form}",
                lambda step=step, x=sequence, zero=zero: step(x, zero, zero),
            )
            if name == "small":
                many = model.streams(STREAMS)
                yield "streams small", f"longshort {form}", lambda many=many, x=rows: many.step(x)
        packed = model.stack.places[0][0].packed or runtime.load(folder / name).stack.places[0][0].packed
        yield (
            f"sequence {name}",
            "longshort batched",
            lambda p=packed, x=sequence: engine.forward(p, x, threads=threads),
        )


def onnxruntime(folder: Path, threads: int) -> Found:
    """One LSTM node, with the state as ports, and without."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads

    def session(file: str) -> Any:
        return ort.InferenceSession(folder / file, options, providers=["CPUExecutionProvider"])

    for name, (C, H) in SIZES.items():
        row, sequence, rows = inputs(C)
        long = sequence.transpose(1, 0, 2).copy()
        alone, whole = session(f"{name}-1.onnx"), session(f"{name}-{T}.onnx")
        yield f"step {name}", "no state", lambda s=alone, x=row[None]: s.run(None, {"x": x})
        yield f"sequence {name}", "onnxruntime", lambda s=whole, x=long: s.run(None, {"x": x})
        for what, N, x in ((f"step {name}", 1, row), ("streams small", STREAMS, rows)):
            if what == "streams small" and name != "small":
                continue
            step = session(f"{name}-state-{N}.onnx")
            fed = {"x": x[None], "h": np.zeros((1, N, H), np.float32), "c": np.zeros((1, N, H), np.float32)}

            def go(step: Any = step, fed: dict[str, Any] = fed) -> object:
                y, fed["h"], fed["c"] = step.run(None, fed)
                return y

            yield what, "onnxruntime", go
            yield what, "onnxruntime, bound", bound(step, x[None], H)


def bound(session: Any, x: Any, H: int) -> Callable[[], object]:
    """The same step on memory of onnxruntime's own: two sets of states, which are each other's outputs."""
    from onnxruntime import OrtValue

    def made(*shape: int) -> Any:
        return OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))

    N = x.shape[1]
    row, y = made(*x.shape), made(1, 1, N, H)
    states = [(made(1, N, H), made(1, N, H)) for _ in range(2)]
    bindings = []
    for (h, c), (h_n, c_n) in (states, states[::-1]):
        binding = session.io_binding()
        for name, value in (("x", row), ("h", h), ("c", c)):
            binding.bind_ortvalue_input(name, value)
        for name, value in (("y", y), ("h_n", h_n), ("c_n", c_n)):
            binding.bind_ortvalue_output(name, value)
        bindings.append(binding)

    def go() -> object:
        row.update_inplace(x)
        session.run_with_iobinding(bindings[0])
        bindings.reverse()
        return y.numpy()

    return go


def openvino(folder: Path, threads: int) -> Found:
    """The same nodes on shared memory: two requests, each the other's state; and without state."""
    import openvino as ov

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = ov.Core()

    def requests(file: str, count: int) -> list[Any]:
        compiled = core.compile_model(core.read_model(folder / file), "CPU", settings)
        return [compiled.create_infer_request() for _ in range(count)]

    def alone(file: str, x: Any) -> Callable[[], object]:
        (request,) = requests(file, 1)
        return lambda: request.infer({"x": x}, share_inputs=True, share_outputs=True)

    def going(file: str, x: Any, H: int) -> Callable[[], object]:
        zero = np.zeros((1, x.shape[1], H), np.float32)
        pair, state = requests(file, 2), [zero, zero.copy()]

        def go() -> object:
            out = pair[0].infer({"x": x, "h": state[0], "c": state[1]}, share_inputs=True, share_outputs=True)
            y, state[0], state[1] = out[0], out[1], out[2]
            pair.reverse()
            return y.copy()

        return go

    for name, (C, H) in SIZES.items():
        row, sequence, rows = inputs(C)
        yield f"step {name}", "no state", alone(f"{name}-1.onnx", row[None])
        yield f"step {name}", "openvino", going(f"{name}-state-1.onnx", row[None], H)
        yield f"sequence {name}", "openvino", alone(f"{name}-{T}.onnx", sequence.transpose(1, 0, 2).copy())
        if name == "small":
            yield "streams small", "openvino", going(f"{name}-state-{STREAMS}.onnx", rows[None], H)


def torch(folder: Path, threads: int) -> Found:
    """torch.nn.LSTM in inference mode."""
    import torch as t

    t.set_num_threads(threads)
    for name, (C, H) in SIZES.items():
        layer = t.nn.LSTM(C, H).eval()
        layer.load_state_dict(t.load(folder / f"{name}.pt", weights_only=True))
        row, sequence, rows = (t.from_numpy(x.copy()) for x in inputs(C))

        def go(x: Any, N: int, H: int = H, layer: Any = layer) -> Callable[[], None]:
            kept = [(t.zeros(1, N, H), t.zeros(1, N, H))]

            def step() -> object:
                with t.inference_mode():
                    y, kept[0] = layer(x, kept[0])
                return y.numpy()

            return step

        yield f"step {name}", "torch", go(row[None], 1)
        yield f"sequence {name}", "torch", go(sequence.transpose(0, 1).contiguous(), 1)
        if name == "small":
            yield "streams small", "torch", go(rows[None], STREAMS)


STARTS = {
    "longshort": "from longshort import runtime\n"
    "model = runtime.load(folder + '/small')\ny = model.stream().step(x[0])",
    "onnxruntime": "import onnxruntime\nsession = onnxruntime.InferenceSession(folder + '/small-1.onnx')\n"
    "y = session.run(None, {'x': x[None]})[0]",
    "openvino": "import openvino\nmodel = openvino.Core().compile_model(folder + '/small-1.onnx', 'CPU')\n"
    "y = model({0: x[None]})[0]",
    "torch": "import torch\nlayer = torch.nn.LSTM(64, 128).eval()\n"
    "layer.load_state_dict(torch.load(folder + '/small.pt', weights_only=True))\n"
    "with torch.inference_mode(): y = layer(torch.from_numpy(x)[None])[0]",
}
"""The shortest script of each that gives the first output of one step."""


def start(contestant: str, folder: Path) -> dict[str, float]:
    """Seconds of a new process to the first output, and its resident memory in MB."""
    code = (
        f"import numpy as np\nfolder = {str(folder)!r}\nx = np.ones((1, 64), np.float32)\n"
        f"{STARTS[contestant]}\nprint(np.asarray(y).shape, flush=True)\n"
        "print([int(l.split()[1]) / 1024 for l in open('/proc/self/status') if l.startswith('VmRSS')][0])"
    )
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    seconds = time.perf_counter() - begin
    resident = float(process.stdout.readline())
    process.wait()
    return {"seconds": seconds, "resident MB": resident}


def child(contestant: str, folder: Path, threads: int) -> None:
    """Measure one contestant, and print its numbers as JSON: microseconds by what and who."""
    found: dict[str, dict[str, float]] = {}
    for what, who, call in globals()[contestant](folder, threads):
        call()
        begin = time.perf_counter()
        call()
        each = max(time.perf_counter() - begin, 1e-7)
        calls, times = max(1, int(0.01 / each)), []
        for _ in range(9):
            begin = time.perf_counter()
            for _ in range(calls):
                call()
            times.append((time.perf_counter() - begin) / calls)
        found.setdefault(what, {})[who] = 1e6 * float(np.median(times))
    print(json.dumps(found))


def write_models(folder: Path) -> None:
    """The same LSTMs in every format."""
    import torch as t

    import longshort as ls
    from longshort.bench import peers

    t.manual_seed(0)
    for name, (C, H) in SIZES.items():
        layer = t.nn.LSTM(C, H).eval()
        t.save(layer.state_dict(), folder / f"{name}.pt")
        for steps in (1, T):
            (folder / f"{name}-{steps}.onnx").write_bytes(peers.onnx_model(layer, 1, steps))
        for N in (1, STREAMS):
            (folder / f"{name}-state-{N}.onnx").write_bytes(peers.onnx_model(layer, N, 1, state=True))
        ls.export(ls.LSTM.from_torch(layer), folder / name)


def accuracy(folder: Path) -> dict[str, Any]:
    """What short weights cost: the error after 200 steps of standard normal x."""
    from longshort import runtime

    found: dict[str, Any] = {}
    for name, (C, _) in SIZES.items():
        x = np.random.default_rng(1).standard_normal((5, 200, C)).astype(np.float32)
        want = runtime.load(folder / name)(x)[0]
        for form in FORMS[1:]:
            error = runtime.load(folder / name, weights=form)(x)[0] - want
            found[f"{name} {form}"] = {
                "largest": float(np.abs(error).max()),
                "root mean square": float(np.sqrt(np.mean(error**2))),
                "share of outputs": float(np.sqrt(np.mean(error**2) / np.mean(want**2))),
            }
    return found


def spread(numbers: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": float(np.median(numbers)), "least": min(numbers), "most": max(numbers)}


def measured(folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    """Microseconds of everything with so many threads, and ours beside the best peer of each round."""
    each: dict[str, dict[str, list[float]]] = {}
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    for k in range(rounds):
        for contestant in CONTESTANTS[:: 1 if k % 2 == 0 else -1]:
            command = [sys.executable, __file__, "--child", contestant, str(folder), str(threads)]
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            for what, numbers in json.loads(done.stdout).items():
                for who, number in numbers.items():
                    label = f"{contestant}, {who}" if who == "no state" else who
                    each.setdefault(what, {}).setdefault(label, []).append(number)
    found: dict[str, Any] = {}
    for what, numbers in each.items():
        ours = {who: n for who, n in numbers.items() if who.startswith(("longshort", "alone"))}
        peers = {who: n for who, n in numbers.items() if who not in ours}
        going = {who: n for who, n in peers.items() if not who.endswith("no state")}
        found[what] = {"microseconds": {who: spread(n) for who, n in numbers.items()}}
        for title, some in ((BEST, going), (CHEAPEST, peers)):
            best = np.min(list(some.values()), axis=0)
            found[what][title] = {who: spread(list(best / n)) for who, n in ours.items()}
        if len(going) == len(peers):
            del found[what][CHEAPEST]
    return found


def asked(found: dict[str, Any]) -> list[Any]:
    """Every number that is asked for, as `longshort bench cpu` prints its own."""
    from longshort.bench.targets import Row

    rows = []
    cache = found["second-level cache, KB"]
    for threads in (key for key in found if key.startswith("threads ")):
        cores = f"{threads.removeprefix('threads ')} thread{'s' * (threads != 'threads 1')}"
        for name, (C, H) in SIZES.items():
            for form in FORMS:
                fits = 4 * H * (C + H) * SIZE[form] <= 1024 * cache
                least = 3.0 if fits or form == "int8" else 1.4
                for title in (BEST, CHEAPEST):
                    ratio = found[threads][f"step {name}"][title][f"longshort {form}"]["median"]
                    rows.append(Row(f"step {name}, {form}, {cores}, {title}", least, ratio))
        for form in FORMS:
            ratio = found[threads]["streams small"][BEST][f"longshort {form}"]["median"]
            rows.append(Row(f"{STREAMS:,} streams, {form}, {cores}, {BEST}", 2.0, ratio))
    seconds = found["start"]["longshort"]["seconds"]["median"]
    rows.append(Row("start of the process to the first output, s", 0.2, seconds, at_most=True))
    rows.append(Row("installed beyond NumPy, MB", 5.0, found["installed, MB"], at_most=True))
    return rows


def installed() -> float:
    """MB of what the base install brings beyond NumPy: the package and the compiled engine."""
    from longshort import engine

    home = Path(engine.__file__).parents[1]
    files = [
        p
        for p in home.rglob("*")
        if p.is_file() and not {"__pycache__", "src"} & set(p.parts[len(home.parts) :])
    ]
    binary = Path(engine._there().__file__)
    return sum(p.stat().st_size for p in {*files, binary}) / 1e6


def second_cache() -> int:
    """KB of a core's second-level cache; 1,024 where the system does not say."""
    told = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
    return int(told.read_text().strip().removesuffix("K")) if told.is_file() else 1024


def limits() -> dict[str, float]:
    """What bounds a step on this machine."""
    from longshort import engine

    return {
        "GFLOP/s of one core": engine.peak() / 1e9,
        "GB/s of one core from the first cache": engine.reading(16 << 10) / 1e9,
        "GB/s of one core from the second cache": engine.reading(400 << 10) / 1e9,
        "GB/s of one core beyond it, 3 MB": engine.reading(3 << 20) / 1e9,
        "ns of a meeting of two threads": engine.meeting() * 1e9,
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Every contestant's numbers, as median, least and most."""
    for threads in (key for key in found if key.startswith("threads ")):
        for what, numbers in found[threads].items():
            yield f"{what}, {threads}, us"
            for who, n in sorted(numbers["microseconds"].items(), key=lambda one: one[1]["median"]):
                yield f"  {who:26} {n['median']:10.2f}  [{n['least']:.2f}, {n['most']:.2f}]"
    yield "start, s, and resident memory, MB"
    for who, numbers in found["start"].items():
        yield f"  {who:26} {numbers['seconds']['median']:10.3f}  {numbers['resident MB']['median']:7.0f}"


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--child", nargs=3)
    arguments = parser.parse_args()
    if arguments.child:
        contestant, folder, threads = arguments.child
        child(contestant, Path(folder), int(threads))
        return
    import record

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_models(folder)
        content: dict[str, Any] = {"load before": os.getloadavg()[0], "limits before": limits()}
        content |= {"second-level cache, KB": second_cache(), "installed, MB": installed()}
        content["versions of peers"] = {name: importlib.metadata.version(name) for name in CONTESTANTS[1:]}
        for threads in arguments.threads:
            content[f"threads {threads}"] = measured(folder, threads, arguments.rounds)
        starts = [{who: start(who, folder) for who in CONTESTANTS} for _ in range(arguments.rounds)]
        content["start"] = {
            who: {key: spread([each[who][key] for each in starts]) for key in starts[0][who]}
            for who in CONTESTANTS
        }
        content["accuracy"] = accuracy(folder)
        content["limits after"] = limits()
    rows = asked(content)
    content["asked"] = [{**vars(row), "met": row.met} for row in rows]
    path = record.write("runtime", content)
    print(*lines(content), *rows, path, sep="\n")


if __name__ == "__main__":
    main()
