"""Files into characters: whatever the pieces, and what is no text is an error with its place."""

import bz2
import gzip
import lzma

import pytest

from longshort.errors import DataError, SettingError
from longshort.tasks.language import text

GREEK = "αβγ\nδεζ and ↯ 𝄞\n"


def write(folder, content, name="book.txt"):
    path = folder / name
    path.write_bytes(content)
    return path


def read(path, **options):
    return "".join(text.characters(path, **options))


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 1 << 20])
@pytest.mark.parametrize(
    ("content", "encoding", "found"),
    [
        (GREEK.encode(), "utf-8", GREEK),
        (("\ufeff" + GREEK).encode(), "utf-8", GREEK),
        (GREEK.encode("utf-16"), "utf-16", GREEK),
        (b"a\r\nb\rc\n\r\n", "utf-8", "a\nb\nc\n\n"),
        ("café".encode("latin-1"), "latin-1", "café"),
        (b"", "utf-8", ""),
    ],
)
def test_pieces_of_any_size_give_the_same_text(tmp_path, monkeypatch, piece, content, encoding, found):
    monkeypatch.setattr(text, "PIECE", piece)
    assert read(write(tmp_path, content), encoding=encoding) == found


@pytest.mark.parametrize("piece", [1, 4, 1 << 20])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"caf\xe9 au lait",
            "not utf-8 text at byte 3 (0xe9). Name its encoding, such as --encoding latin-1, or use "
            "--unit byte.",
        ),
        (
            b"0123456789 \xce",
            "not utf-8 text at byte 11 (0xce). Name its encoding, such as --encoding latin-1, or use "
            "--unit byte.",
        ),
        (
            b"no text \0\0",
            "must be text, and has a zero byte at 8. UTF-16 without a mark needs --encoding utf-16-le or "
            "utf-16-be; bytes of any kind can be modelled with --unit byte.",
        ),
    ],
)
def test_what_is_no_text(tmp_path, monkeypatch, piece, content, message):
    monkeypatch.setattr(text, "PIECE", piece)
    path = write(tmp_path, content)
    with pytest.raises(DataError) as raised:
        read(path)
    assert str(raised.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    "pack, kind", [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")]
)
def test_an_archive_is_to_be_unpacked(tmp_path, pack, kind):
    path = write(tmp_path, pack(bytes(range(256)) * 4))
    with pytest.raises(DataError) as raised:
        read(path)
    assert str(raised.value) == f"{path}: must be text, and is a {kind} archive. Unpack it first."


def test_no_such_file(tmp_path):
    path = tmp_path / "none.txt"
    with pytest.raises(DataError) as raised:
        read(path)
    assert str(raised.value) == f"{path}: cannot be read: No such file or directory."


def test_no_such_encoding(tmp_path):
    with pytest.raises(SettingError) as raised:
        read(write(tmp_path, b"a"), encoding="klingon")
    assert str(raised.value) == (
        "language: `encoding` must be one that Python knows, such as 'utf-8' or 'latin-1', got 'klingon'."
    )


@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_bytes_of_any_kind_come_back(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(text, "PIECE", piece)
    content = bytes(range(256)) + "αβ".encode()
    found = "".join(text.raw(write(tmp_path, content)))
    assert found.encode("utf-8", "surrogateescape") == content


def test_the_topics_are_a_text():
    found = "".join(text.topics())
    assert len(found) > 300_000 and "\n" in found
