"""docs/series.md says what is true: its sessions are run, and what they print is compared."""

import doctest
import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "series.md"


def test_the_sessions_of_the_document(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = DOCUMENT.read_text("utf8")
    sessions = re.findall(r"^```pycon\n(.*?)^```$", text, re.M | re.S)
    assert len(sessions) == 9
    session = doctest.DocTestParser().get_doctest("\n".join(sessions), {}, DOCUMENT.name, str(DOCUMENT), 0)
    report = []
    doctest.DocTestRunner().run(session, out=report.append)
    assert report == []
