"""A run is a folder: settings, weights, metrics, predictions, pictures. Nothing in it is ever half-written.

    settings.json        the task's name, the settings, the versions that made it
    weights.safetensors  the best weights, with what is needed to use them in its metadata
    last.safetensors     the last checkpoint: all that an exact resume needs
    metrics.jsonl        one JSON object a line, one line an event of training

Every file is written under a temporary name in the same folder, flushed to the disk, and renamed: a
reader sees the old file or the new one. A kill can leave a temporary file behind; it belongs to no run,
and the next training in the folder clears it away. No pickle is read or written.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from .errors import RunError, need

FORMAT = 1
"""The layout's version; a folder with a larger one was written by a newer longshort."""

ABANDONED = 3600.0
"""Seconds after which a temporary file that nobody wrote to was left behind by a kill: a younger one may
belong to a training that is still at work in the folder."""


class Run:
    """One run folder.

    Args:
        folder: its path; `create` and `open` are the usual ways to get one.
        task: the task whose run it is, such as ``"forecast"``.
        settings: the JSON object of its settings.
    """

    def __init__(self, folder: str | Path, task: str, settings: dict[str, Any]) -> None:
        self.folder, self.task, self.settings = Path(folder), task, settings

    @classmethod
    def create(
        cls,
        folder: str | Path,
        task: str,
        settings: dict[str, Any],
        hint: Callable[[Collection[str]], str] | None = None,
    ) -> Run:
        """Make the folder, or take up the run of the same task and settings that is in it.

        Args:
            folder: where the run is to be; its parents are made too.
            task: the task's name.
            settings: a JSON object; what `open` gives back.
            hint: makes of the names that differ a sentence on what else can be done, or "".

        Returns:
            The run; ``run.exists("last.safetensors")`` says whether there is something to resume.

        Raises:
            RunError: the folder holds another task, other settings (the differing ones are named),
                files that are no run, or cannot be written.
        """
        folder = Path(folder)
        if (folder / "settings.json").exists():
            run = cls.open(folder, task)
            wanted = json.loads(json.dumps(settings))
            differing = sorted(
                key for key in {*run.settings, *wanted} if run.settings.get(key) != wanted.get(key)
            )
            if differing:
                pairs = ", ".join(f"{k} {run.settings.get(k)!r} -> {wanted.get(k)!r}" for k in differing)
                advice = "Give another --out, or repeat the run's own settings to resume it."
                more = hint(differing) if hint is not None else ""
                raise RunError(
                    f"{folder}: holds a run with other settings: {pairs}. {f'{advice} {more}'.rstrip()}"
                )
            _clear(folder)
            return run
        others = folder.is_dir() and any(not file.match(".settings.json.*.part") for file in folder.iterdir())
        if folder.is_file() or others:
            kind = "a file" if folder.is_file() else "a folder with other files in it"
            raise RunError(f"{folder}: is {kind}, not a run. Give an --out that is new or empty.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder}: cannot be made: {error.strerror}.") from None
        run = cls(folder, task, settings)
        run.write_json("settings.json", {"longshort": FORMAT, "task": task, "settings": settings})
        _clear(folder)
        return run

    @classmethod
    def open(cls, folder: str | Path, task: str | None = None) -> Run:
        """Open a run folder.

        Args:
            folder: the folder `create` made.
            task: the task it must be of; any if None.

        Raises:
            RunError: there is no such folder, it is no run, it was written by a newer longshort, or it
                holds another task.
        """
        folder = Path(folder)
        if not (folder / "settings.json").is_file():
            why = "holds no settings.json" if folder.is_dir() else "there is no such folder"
            raise RunError(f"{folder}: is not a run: {why}. A run is what `longshort train ... --out` wrote.")
        content = cls(folder, "", {}).read_json("settings.json")
        shape = isinstance(content, dict) and isinstance(content.get("settings"), dict)
        if not shape or not isinstance(content.get("task"), str):
            raise RunError(f"{folder / 'settings.json'}: was not written by longshort: no `task` in it.")
        if not isinstance(content.get("longshort"), int) or content["longshort"] > FORMAT:
            raise RunError(
                f"{folder}: has layout {content.get('longshort')!r}, and this longshort reads up to "
                f"{FORMAT}. Install a newer longshort."
            )
        if task is not None and content["task"] != task:
            raise RunError(
                f"{folder}: holds a run of `{content['task']}`, not of `{task}`. Give another folder."
            )
        return cls(folder, content["task"], content["settings"])

    def path(self, name: str) -> Path:
        """Return the path of a file of this run."""
        return self.folder / name

    def exists(self, name: str) -> bool:
        """Say whether the run has a file of this name."""
        return self.path(name).is_file()

    def write_bytes(self, name: str, content: bytes) -> Path:
        """Write a file whole or not at all, and return its path."""
        with replacing(self.path(name)) as file:
            file.write(content)
        return self.path(name)

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file whole or not at all, and return its path."""
        return self.write_bytes(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """Read a JSON file of this run.

        Raises:
            RunError: it is missing or damaged; the message says where.
        """
        try:
            return json.loads(self.path(name).read_bytes())
        except OSError as error:
            raise RunError(f"{self.path(name)}: cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError as error:
            raise RunError(f"{self.path(name)}: is damaged: not UTF-8 at byte {error.start}.") from None
        except json.JSONDecodeError as error:
            line = error.doc.rstrip().count("\n", 0, error.pos) + 1  # not one behind the last, which is empty
            raise RunError(f"{self.path(name)}, line {line}: is damaged: {error.msg}.") from None

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray], about: dict[str, Any]) -> Path:
        """Write named arrays and a JSON object beside them as one safetensors file, whole or not at all.

        Args:
            name: the file's name, such as ``"weights.safetensors"``.
            arrays: any shapes; float, int and bool types.
            about: a JSON object kept in the same file, so that both are always of one moment.
        """
        numpy = need("safetensors.numpy", extra="tasks", to="save weights")
        contiguous = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
        return self.write_bytes(name, numpy.save(contiguous, {"longshort": json.dumps(about)}))

    def read_arrays(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Read what `write_arrays` wrote: the arrays, and the JSON object beside them.

        Raises:
            RunError: the file is missing, cut short, or was written by another program.
        """
        safetensors = need("safetensors", extra="tasks", to="read weights")
        path = self.path(name)
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                about = json.loads((file.metadata() or {}).get("longshort", "null"))
                names = file.keys()
                arrays = {name: file.get_tensor(name) for name in names}
        except FileNotFoundError:
            raise RunError(f"{path}: there is no such file. Train the run first.") from None
        except (safetensors.SafetensorError, ValueError, OSError) as error:
            raise RunError(f"{path}: is damaged or is no safetensors file: {error}.") from None
        if not isinstance(about, dict):
            raise RunError(f"{path}: is a safetensors file, but was not written by longshort.")
        return arrays, about

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl; a line is written in one call, so a reader never sees a part."""
        text = json.dumps({k: _plain(v) for k, v in line.items()}, ensure_ascii=False)
        with open(self.path("metrics.jsonl"), "ab", buffering=0) as file:
            file.write(text.encode() + b"\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl; a last line that a kill cut short is left out."""
        if not self.exists("metrics.jsonl"):
            return []
        lines = self.path("metrics.jsonl").read_bytes().split(b"\n")
        return [json.loads(line) for line in lines[:-1] if line]

    def keep_metrics(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the lines of metrics.jsonl that are not wanted: those past the checkpoint, on a resume."""
        lines = [json.dumps(line, ensure_ascii=False) for line in self.read_metrics() if wanted(line)]
        self.write_bytes("metrics.jsonl", "".join(line + "\n" for line in lines).encode())


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the name `path` when the block ends well, and vanishes when not.

    Args:
        path: the final name; its folder must exist.

    Raises:
        RunError: the file cannot be written (no right, no space); what stood at `path` is untouched.

    >>> import pathlib, tempfile
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "note.txt"
    >>> with replacing(target) as file:
    ...     _ = file.write(b"whole")
    >>> target.read_bytes()
    b'whole'
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written: {error.strerror}."
            + (" What stood there before is unchanged." if path.exists() else "")
        ) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def require_writable(path: str | Path) -> None:
    """Find out before long work whether a file can be written after it, and make its folder.

    Args:
        path: the final name, for `replacing`.

    Raises:
        RunError: it cannot, and what stood at `path` is untouched; or it is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise RunError(f"{path}: cannot be written: it is a folder. Give the name of a file in it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path.parent}: cannot be made: {error.strerror}. Give another name.") from None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        Path(name).unlink()
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}.") from None


def _clear(folder: Path) -> None:
    """Remove what killed writers left in a run folder."""
    for path in folder.glob(".*.part"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
