"""The tree of errors, and how a missing package is told from a broken one."""

import pytest

from longshort import errors
from longshort.errors import LongshortError, MissingExtra, need


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ShapeError", ValueError),
        ("SettingError", ValueError),
        ("BackendError", RuntimeError),
        ("DataError", ValueError),
        ("RunError", ValueError),
        ("MissingExtra", ImportError),
    ],
)
def test_each_is_ours_and_a_builtin(name, builtin):
    assert issubclass(getattr(errors, name), LongshortError)
    assert issubclass(getattr(errors, name), builtin)
    assert name in errors.__doc__


def test_a_missing_package_says_how_to_install_it():
    with pytest.raises(MissingExtra) as raised:
        need("no_such_module.part", extra="tasks", to="read a table")
    assert str(raised.value) == (
        "longshort needs `no_such_module` to read a table, and it is not installed. "
        "Install it with: pip install 'longshort[tasks]'"
    )


def test_a_broken_package_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "halfbroken.py").write_text("import does_not_exist_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="does_not_exist_at_all") as raised:
        need("halfbroken", extra="tasks", to="read a table")
    assert not isinstance(raised.value, LongshortError)
