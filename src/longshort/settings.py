"""Settings declared once: the range check, the command-line flag, the help and the saved JSON follow."""

from __future__ import annotations

import argparse
import dataclasses
import json
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self

from .errors import SettingError


def setting(
    default: Any,
    help: str,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    choices: Sequence[Any] | None = None,
) -> Any:
    """Declare a dataclass field with its meaning and the values it may take.

    Args:
        default: the value without a flag; its type is the flag's type. None may stand for "derived",
            when the field's annotation admits None.
        help: one sentence; it is the flag's help and the last line of every error about this field.
        above: lower bound, itself excluded.
        least: lower bound, itself allowed.
        below: upper bound, itself excluded.
        most: upper bound, itself allowed.
        choices: the allowed values, in place of a range.

    Returns:
        A dataclass field whose metadata holds the help, the range as text, and its test.

    >>> @dataclass(frozen=True, kw_only=True)
    ... class Fit(Settings):
    ...     lr: float = setting(1e-3, "Learning rate at its peak, after warm-up.", above=0, most=1)
    >>> Fit(lr=3.0)
    Traceback (most recent call last):
    longshort.errors.SettingError: Fit: `lr` must be in (0, 1], got 3.0.
      Learning rate at its peak, after warm-up.
    """
    if choices is not None:
        allowed, inside = f"one of {', '.join(map(repr, choices))}", _one_of(tuple(choices))
    else:
        low = f"({above}" if above is not None else f"[{least}" if least is not None else "(-inf"
        high = f"{below})" if below is not None else f"{most}]" if most is not None else "inf)"
        allowed, inside = f"in {low}, {high}", _between(above, least, below, most)
    metadata = {"help": help, "allowed": allowed, "inside": inside, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def _one_of(choices: tuple[Any, ...]) -> Callable[[Any], bool]:
    return lambda value: value in choices


def _between(
    above: float | None, least: float | None, below: float | None, most: float | None
) -> Callable[[Any], bool]:
    def inside(value: Any) -> bool:
        if isinstance(value, str | bool | tuple | list):
            return above is least is below is most is None
        return (
            -float("inf") < value < float("inf")  # NaN lands outside: every comparison with it is false
            and (above is None or value > above)
            and (least is None or value >= least)
            and (below is None or value < below)
            and (most is None or value <= most)
        )

    return inside


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of every group of settings: immutable, keyword-only, checked when it is made.

    Raises:
        SettingError: a value has another type than its field, or lies outside the field's range.
    """

    called: ClassVar[str] = ""
    """What errors call these settings, such as a task; the class's own name if empty."""

    def __post_init__(self) -> None:
        kinds = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            called, value = f"{self.called or type(self).__name__}: `{field.name}`", getattr(self, field.name)
            object.__setattr__(self, field.name, self._checked(field, kinds[field.name], value, called))

    @classmethod
    def _checked(cls, field: dataclasses.Field[Any], kind: Any, value: Any, called: str) -> Any:
        """The value in its field's type; `called` is what an error names it by."""
        scalar, optional, many = _kind(kind)
        if value is None and optional:
            return None
        values = tuple(value) if many and isinstance(value, list | tuple) else (value,)
        for one in values:
            if not _is(one, scalar):
                got = f"{one!r} ({type(one).__name__})"
                must = f"{'a list of ' if many else ''}{scalar.__name__}{' or none' if optional else ''}"
            elif not field.metadata["inside"](one):
                got, must = repr(one), field.metadata["allowed"]
            else:
                continue
            raise SettingError(f"{called} must be {must}, got {got}.\n  {field.metadata['help']}")
        converted = tuple(scalar(one) for one in values)
        return converted if many else converted[0]

    @classmethod
    def flags(
        cls, parser: argparse.ArgumentParser | argparse._ArgumentGroup, names: Sequence[str] | None = None
    ) -> None:
        """Add one ``--flag`` a field, typed and explained by the field itself.

        A flag that is not given leaves no attribute, so that `replace` and a settings file stand
        beneath the command line.

        Args:
            parser: a parser or a group of one.
            names: the fields to add; all if None.
        """
        kinds = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if names is not None and field.name not in names:
                continue
            scalar, _, many = _kind(kinds[field.name])
            allowed = field.metadata["allowed"].replace("%", "%%")
            limits = "" if allowed == "in (-inf, inf)" else f" {allowed[0].upper()}{allowed[1:]}."
            help = f"{field.metadata['help'].replace('%', '%%')}{limits} Default: {_typed(field.default)}."
            name = _flag(field.name)
            if scalar is bool:
                parser.add_argument(
                    name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=help
                )
                continue
            options: dict[str, Any] = {"type": _listed(scalar) if many else scalar}
            parser.add_argument(
                name,
                default=argparse.SUPPRESS,
                metavar=_METAVAR[scalar] + (",..." if many else ""),
                help=help,
                **options,
            )

    @classmethod
    def given(cls, namespace: argparse.Namespace, beneath: Self | None = None) -> Self:
        """Return the settings a parsed command line asks for.

        Args:
            namespace: what a parser with `flags` returned.
            beneath: the settings that hold where no flag was given; the defaults if None.

        Raises:
            SettingError: a value out of range; the message names its flag.
        """
        kinds = typing.get_type_hints(cls)
        given = {
            field.name: cls._checked(
                field, kinds[field.name], getattr(namespace, field.name), _flag(field.name)
            )
            for field in dataclasses.fields(cls)
            if hasattr(namespace, field.name)
        }
        return dataclasses.replace(beneath if beneath is not None else cls(), **given)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON values; `from_json` of it is equal to this object."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], source: str = "settings") -> Self:
        """Make settings from JSON values.

        Args:
            values: field names and values; a field that is left out keeps its default.
            source: what to call `values` in an error, such as the file they came from.

        Raises:
            SettingError: a name that is no field (the known ones are listed), or a value out of range.
        """
        known, called = [field.name for field in dataclasses.fields(cls)], cls.called or cls.__name__
        for name in values:
            if name not in known:
                raise SettingError(
                    f"{source}: `{name}` is no setting of {called}. Known: {', '.join(known)}."
                )
        return cls(**values)

    @classmethod
    def read(cls, path: str | Path, section: str | None = None) -> Self:
        """Read settings from a JSON file, such as the ``settings.json`` of a run folder.

        Args:
            path: the file.
            section: the key under which these settings stand, if the file holds more than them.

        Raises:
            SettingError: the file is missing or is not JSON (with line and column), a name is not
                known, or a value lies outside its range.
        """
        try:
            values = json.loads(Path(path).read_bytes())
        except OSError as error:
            raise SettingError(f"{path}: cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError as error:
            raise SettingError(f"{path}: not UTF-8 text at byte {error.start}.") from None
        except json.JSONDecodeError as error:
            line = error.doc.rstrip().count("\n", 0, error.pos) + 1  # not one behind the last, which is empty
            raise SettingError(f"{path}, line {line}: not JSON: {error.msg}.") from None
        if section is not None and isinstance(values, dict):
            values = values.get(section, {})
        if not isinstance(values, dict):
            raise SettingError(f"{path}: must hold a JSON object of settings, got {type(values).__name__}.")
        return cls.from_json(values, str(path))


def _typed(value: object) -> object:
    """A default as a user would type it."""
    if value is None:
        return "derived"
    return (",".join(map(str, value)) or "none") if isinstance(value, tuple) else value


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


_METAVAR = {int: "INT", float: "X", str: "WORD"}


def _kind(hint: Any) -> tuple[type, bool, bool]:
    """Split a field's annotation into its scalar type, whether None is allowed, whether it is a tuple."""
    optional = many = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        hint, optional = parts[0], True
    if typing.get_origin(hint) is tuple:
        hint, many = typing.get_args(hint)[0], True
    return hint, optional, many


def _is(value: Any, scalar: type) -> bool:
    if isinstance(value, bool):
        return scalar is bool
    numbers: dict[type, Any] = {float: Real, int: Integral}  # NumPy's too
    return isinstance(value, numbers.get(scalar, scalar))


def _listed(scalar: type) -> Callable[[str], tuple[Any, ...]]:
    def parse(text: str) -> tuple[Any, ...]:
        return tuple(scalar(part.strip()) for part in text.split(",") if part.strip())

    parse.__name__ = f"comma-separated {scalar.__name__}"  # argparse shows it in "invalid ... value"
    return parse
