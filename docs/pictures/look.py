"""Make the pictures of docs/look.md from the pages that its commands write. Needs Chromium and playwright.

python docs/pictures/look.py forecast=co2.html text=topics.html loan=runs/loan/loan.html
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
VIEWS = {"forecast": ("findings", "horizon", "film"), "text": ("score", "influence"), "loan": ("horizon",)}
"""Which views of a page its picture shows."""
ALONE = """views => {
    for (const view of document.querySelectorAll('section.view')) view.hidden = !views.includes(view.id);
    document.querySelector('header').style.position = 'static';
    for (const hidden of document.querySelectorAll('section.view[hidden]')) hidden.style.display = 'none';
}"""


def picture(name: str, page: Path) -> None:
    """Draw some views of a page as docs/pictures/look-NAME.png."""
    with sync_playwright() as tool:
        chromium = tool.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = chromium.new_context(offline=True, viewport={"width": 1100, "height": 900}).new_page()
        tab.goto(page.resolve().as_uri())
        tab.wait_for_selector("html.ready", timeout=60_000)
        tab.evaluate(ALONE, list(VIEWS[name]))
        tab.screenshot(path=HERE / f"look-{name}.png", full_page=True)
        chromium.close()


if __name__ == "__main__":
    for pair in sys.argv[1:]:
        name, _, page = pair.partition("=")
        picture(name, Path(page))
