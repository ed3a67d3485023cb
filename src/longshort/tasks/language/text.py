"""Files into characters, piece by piece; what is no text is an error with its place."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ...errors import DataError, SettingError

PIECE = 1 << 20
"""Bytes read at a time."""
MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""How texts begin that say their encoding, the longer mark first."""
PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
"""How archives begin."""


def characters(path: str | Path, encoding: str = "utf-8") -> Iterator[str]:
    """Read a file as pieces of text; every kind of line end becomes a newline, a byte order mark vanishes.

    Args:
        path: the file; "-" is standard input.
        encoding: how characters are written in it.

    Raises:
        SettingError: no such encoding.
        DataError: the file cannot be read, is not in this encoding, or holds a zero byte.
    """
    decoder = _decoder(encoding)
    lines = io.IncrementalNewlineDecoder(None, translate=True)
    done, first = 0, True
    with opened(path) as file:
        while True:
            piece = file.read(PIECE)
            zero = piece.find(b"\0")
            if zero >= 0 and "16" not in encoding and "32" not in encoding:
                packed = next(
                    (name for start, name in PACKED.items() if not done and piece.startswith(start)), None
                )
                if packed is not None:
                    raise DataError(f"{path}: must be text, and is a {packed} archive. Unpack it first.")
                marked = next(
                    (name for mark, name in MARKS.items() if not done and piece.startswith(mark)), None
                )
                if marked is not None:
                    raise DataError(f"{path}: not {encoding} text but {marked}. Give --encoding {marked}.")
                raise DataError(
                    f"{path}: must be text, and has a zero byte at {done + zero:,}. UTF-16 without a mark "
                    f"needs --encoding utf-16-le or utf-16-be; bytes of any kind can be modelled with "
                    f"--unit byte."
                )
            held = len(decoder.getstate()[0])
            try:
                text = decoder.decode(piece, final=not piece)
            except UnicodeError as error:
                where = f": {error}"  # a mark that is missing has no place
                if isinstance(error, UnicodeDecodeError):
                    at, byte = done - held + error.start, error.object[error.start]
                    where = f" at byte {at:,} ({byte:#04x})"
                like = "utf-16-le" if "16" in encoding else "latin-1"
                raise DataError(
                    f"{path}: not {encoding} text{where}. "
                    f"Name its encoding, such as --encoding {like}, or use --unit byte."
                ) from None
            done += len(piece)
            text = lines.decode(text, final=not piece)
            if first and text:
                text, first = text.removeprefix("\ufeff"), False
            if text:
                yield text
            if not piece:
                return


def raw(path: str | Path) -> Iterator[str]:
    """Read a file of any bytes as pieces of text that encode to them again, with errors="surrogateescape".

    Raises:
        DataError: it cannot be read.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    with opened(path) as file:
        while piece := file.read(PIECE):
            yield decoder.decode(piece)
        yield decoder.decode(b"", final=True)


def counter(encoding: str) -> Callable[[str], int]:
    """What counts the characters of a file, given piece by piece as `raw` reads it."""
    if codecs.lookup(encoding).name == "utf-8":
        return len
    decoder = codecs.getincrementaldecoder(encoding)("replace")

    def count(piece: str) -> int:
        try:
            return len(decoder.decode(piece.encode("utf-8", "surrogateescape")))
        except UnicodeError as error:
            raise DataError(f"the text: is not in {encoding}: {error}. Name its encoding.") from None

    return count


def opened(path: str | Path) -> BinaryIO:
    """Open a file, or standard input for "-".

    Raises:
        DataError: it cannot be opened.
    """
    try:
        return open("/dev/stdin" if str(path) == "-" else path, "rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None


def names_a_file(text: str) -> bool:
    """Whether a text, of any length, is the name of a file."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or with a zero
        return False


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    try:
        with suppress(UnicodeError):
            b" ".decode(encoding)  # which, unlike the next, knows that of base64 no text comes
        return codecs.getincrementaldecoder(encoding)("strict")
    except (LookupError, TypeError, ValueError):
        raise SettingError(
            f"language: `encoding` must be one that Python knows, such as 'utf-8' or 'latin-1', "
            f"got {encoding!r}."
        ) from None


def topics() -> Iterator[str]:
    """Python's own help topics, which come with every interpreter: about half a million characters."""
    from pydoc_data.topics import topics as found

    for name in sorted(found):
        yield found[name].strip() + "\n\n\n"
