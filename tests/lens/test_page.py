"""The page in a real browser: from a file, with the network off, with and without scripts."""

import html
import json
import re
import shutil

import pytest
import torch
from models import Reader, recall
from torch import nn

from longshort import LSTM
from longshort.errors import RunError, SettingError
from longshort.lens import WORDS, look, override, worded
from longshort.scan.variant import Variant

HOSTILE = [
    "</script><img src=x onerror=\"document.title='broken'\">",
    "<!--<script>",
    "\u202eright to left\u202c",
    "שלום",
    "👩‍🔬🧪",
    "x" * 10_000,
    "{{data}} {f} ${1}",
    "\u2028\u0000\t'\"&amp;",
]


@pytest.fixture(scope="module")
def seen():
    torch.manual_seed(0)
    x, y = recall(14, torch.Generator().manual_seed(0))(12)
    models = {
        name: Reader(cell, 2, 8, 1) for name, cell in (("LSTM", nn.LSTM), ("GRU", nn.GRU), ("RNN", nn.RNN))
    }
    others = {"GRU": [models["GRU"], Reader(nn.GRU, 2, 8, 1)], "RNN": models["RNN"]}
    film = [
        {"step": 10 * k, "length": 15, "lags": list(range(15)), "full": [0.5**j * (1 + k) for j in range(15)],
         "half": [1.0 + k, 2.0 + k, 15.0], "gates": {g: [0.1 * k, 0.2] for g in "ifo"}}
        for k in range(4)
    ]  # fmt: skip
    return look(
        models["LSTM"], x, loss=lambda out: (out[:, 0] - y).square(), required=14, compare=others,
        title="Recall", channels=["symbol", "noise"], film=film,
    )  # fmt: skip


@pytest.fixture(scope="module")
def hostile():
    torch.manual_seed(0)
    tokens = [HOSTILE, HOSTILE[::-1]]
    return look(
        nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True), torch.randn(2, len(HOSTILE), 3),
        title=HOSTILE[0], tokens=tokens, names=HOSTILE[:2], channels=HOSTILE[:3],
    )  # fmt: skip


@pytest.fixture(scope="module")
def chromium():
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("NO BROWSER: the page is not tested. Install Debian's chromium.")
    playwright = pytest.importorskip("playwright.sync_api", reason="NO BROWSER: pip install playwright")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, tmp_path):
    """Open a look from a file; fails if the page says anything to the console or asks the network."""
    said, contexts = [], []

    def visit(made, width=1200, scripts=True, scheme="light"):
        context = chromium.new_context(
            offline=True,
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            java_script_enabled=scripts,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else said.append(r.url)
        )
        page.goto(made.save(tmp_path / "look.html").as_uri())
        if scripts:
            page.wait_for_selector("html.ready", timeout=20_000)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert said == []


OUTSIDE = """() => [...document.querySelectorAll('section svg text')].filter(text => {
    const [a, b] = [text.getBoundingClientRect(), text.ownerSVGElement.getBoundingClientRect()];
    return a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1;
    }).map(text => text.textContent)"""
"""Labels that reach beyond their drawing."""

VIEWS = ["findings", "theatre", "score", "ledger", "horizon", "river", "influence", "units", "film"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_it_opens_and_every_view_is_there(opened, seen, width, scheme):
    page = opened(seen, width, scheme=scheme)
    assert page.eval_on_selector_all("section.view", "all => all.map(v => v.id)") == VIEWS
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut off at the side"
    for view in VIEWS[1:]:
        assert page.locator(f"#{view} svg").count() >= 1
    assert page.evaluate(OUTSIDE) == [], "every label stands inside its drawing"


def cursors(page):
    """The places of the shared time cursor; the film has a slider, and a cursor, of its own."""
    return page.eval_on_selector_all(
        "section:not(#film) svg .cursor",
        "all => all.map(c => [c.closest('section').id, c.getAttribute('x1') + c.getAttribute('y1')])",
    )


def test_the_cursor_moves_all_views(opened, seen):
    page = opened(seen)
    before = cursors(page)
    assert {name for name, _ in before} == {"theatre", "score", "ledger", "river", "influence"}
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(80)
    moved = cursors(page)
    assert all(a != b for (_, a), (_, b) in zip(before, moved, strict=True))
    page.keyboard.press("End")
    page.wait_for_timeout(80)
    assert page.locator("#now").text_content() == "step 14 of 0 … 14"
    box = page.locator("#score svg").bounding_box()
    page.locator("#score").scroll_into_view_if_needed()
    box = page.locator("#score svg").bounding_box()
    page.mouse.move(box["x"] + 160, box["y"] + 100)
    page.wait_for_timeout(80)
    assert page.locator("#now").text_content() == "step 0 of 0 … 14"


def test_the_film_has_a_slider_of_its_own(opened, seen):
    page = opened(seen)
    curve = "document.querySelector('#film .pair path[stroke-width=\"2\"]').getAttribute('d')"
    assert page.text_content("#frame-step") == "training step 30", "it opens at the last moment"
    shut = page.locator("#film .stage").last
    assert "30 % shut, 20 % open" in shut.text_content()
    before = page.evaluate(curve)
    page.eval_on_selector("#frame", "e => { e.value = 1; e.dispatchEvent(new Event('input')); }")
    assert page.text_content("#frame-step") == "training step 10"
    assert "10 % shut, 20 % open" in shut.text_content()
    assert page.evaluate(curve) != before
    box = page.locator("#film .stage svg").first.bounding_box()
    page.locator("#film .stage svg").first.click(position={"x": box["width"] - 30, "y": 60})
    assert page.text_content("#frame-step") == "training step 30"


def test_models_and_their_seeds_stand_side_by_side(opened, seen):
    page = opened(seen)
    rows = page.eval_on_selector_all(
        "#horizon .ends tr", "all => all.map(r => [...r.children].map(c => c.textContent))"
    )
    assert rows[0] == ["steps back", "learnable", "stored", "used"]
    assert [row[0] for row in rows[1:]] == ["this LSTM", "GRU, 2 seeds", "RNN"]
    ends = [max(0, one.used.horizon) for one in seen.others["GRU"]]
    assert rows[2][3].removeprefix("≥ ").split(" ")[0] == str(min(ends))
    assert page.locator("#horizon path.seeds").count() == 3, "a band in each panel"
    strokes = page.eval_on_selector_all(
        "#horizon path[stroke-width='2']", "all => all.map(e => e.getAttribute('stroke'))"
    )
    assert len(set(strokes)) == 3


def test_the_switch_renames_all_labels(opened, seen):
    page = opened(seen)
    labels = "all => all.map(e => [e.dataset.words, e.textContent])"
    used = set()
    for vocabulary, words in WORDS.items():
        page.select_option("#pick-words", vocabulary)
        page.wait_for_timeout(80)
        found = page.eval_on_selector_all("[data-words]", labels)
        assert len(found) > 40
        for template, text in found:
            assert text == worded(template, vocabulary), template
            used |= set(re.findall(r"\{(\w+)\}", template))
        assert page.locator("#scheme").is_visible() == (vocabulary == "LTM/STM")
        assert page.evaluate(OUTSIDE) == []
        assert words["f"] in page.locator("#score svg").text_content()
    assert used >= {"f", "i", "g", "o", "c", "h", "x", "write", "keep", "show", "carousel"}


def test_all_vocabularies_name_the_same_arrays(seen):
    assert {frozenset(words) for words in WORDS.values()} == {frozenset(WORDS["classic"])}
    assert all(len(set(words.values())) >= 12 for words in WORDS.values())
    with pytest.raises(
        SettingError, match=r"^look: `vocabulary` must be one of classic, LTM/STM, torch, got 'x'\.$"
    ):
        look(nn.LSTM(1, 1), torch.zeros(3, 1, 1), vocabulary="x")


@pytest.mark.parametrize("onward", [False, True])
def test_sliders_give_the_numbers_of_python(opened, seen, onward):
    page = opened(seen)
    layer = seen.trace.layer()
    unit = int(page.input_value("#pick-unit"))
    page.select_option("#pick-sequence", index=2)
    page.evaluate("document.activeElement.blur()")  # arrows on a focused list would choose in the list
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(80)
    step = int(page.input_value("#time"))
    page.set_checked("#onward", onward)
    gates = {"f": 0.25, "g": -0.5, "o": 1.0}
    for gate, value in gates.items():
        page.eval_on_selector(
            f"#slider-{gate}", f"e => {{ e.value = {value}; e.dispatchEvent(new Event('input')); }}"
        )
    right = override(layer, unit, step, sequence=2, onward=onward, **gates)
    shown = page.eval_on_selector_all(
        "[data-value]", "all => Object.fromEntries(all.map(e => [e.dataset.value, e.textContent]))"
    )
    for symbol, value in {"c": right["c"][step], "h": right["out"][step], **gates}.items():
        assert float(shown[symbol].replace("−", "-")) == pytest.approx(float(value), rel=2e-3, abs=1e-4), (
            symbol
        )
    course = page.evaluate(
        """async ([unit, step, gates, onward]) => {
            const { data, exact } = await import('lens/data');
            const { rerun } = await import('lens/theatre');
            const layer = data.layers[0];
            const numbers = Object.fromEntries('ifgoc'.split('').map(q => [q, exact(layer, unit, q, 2)]));
            const { units, start } = layer.pinned;
            numbers.start = start.values[2 * units.length + units.indexOf(unit)];
            const made = rerun(numbers, 'lstm', step, gates, [...Array(15).keys()], onward);
            return [[...made.state], [...made.out]]; }""",
        [unit, step, gates, onward],
    )
    for got, name in zip(course, ("c", "out"), strict=True):
        torch.testing.assert_close(torch.tensor(got).double(), right[name], rtol=0, atol=1e-6)
    page.click("#as-recorded")
    assert "was" not in page.locator("#value-f").text_content()


def test_the_ledger_of_the_page_is_that_of_python(opened, seen):
    page = opened(seen)
    unit, step = int(page.input_value("#pick-unit")), int(page.input_value("#time"))
    total = float(page.get_attribute("#ledger .foot", "data-sum"))
    assert total == pytest.approx(seen.trace["rnn.l0.c"][0, step, unit].item(), abs=1e-6)


def test_without_scripts_the_picture_and_the_findings_stay(opened, seen):
    page = opened(seen, scripts=False)
    assert page.locator("#still").is_visible()
    assert page.eval_on_selector("#still", "e => e.naturalWidth") > 500
    text = page.locator("#static").text_content()
    assert all(finding.line() in text for finding in seen.findings())


def test_hostile_text_stays_text(opened, hostile):
    page = opened(hostile)
    assert page.title() == HOSTILE[0]
    assert page.locator("img:not(#still)").count() == 0
    tokens = page.eval_on_selector_all("#score .token", "all => all.map(e => e.textContent)")
    assert tokens == [t if len(t) <= 40 else t[:39] + "…" for t in (h[:200] for h in HOSTILE)]
    assert (
        page.eval_on_selector_all("#pick-sequence option", "all => all[0].textContent")
        == HOSTILE[0][:39] + "…"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 1200


def test_units_that_were_not_silenced_are_no_dots_and_headings_name_the_layer(opened):
    torch.manual_seed(0)
    model, x = Reader(nn.LSTM, 2, 24, 1, num_layers=2), torch.randn(12, 9, 2)
    made = look(model, x, loss=lambda out: out[:, 0].square())
    page = opened(made)
    assert (page.locator("#units .tried").count(), page.locator("#units .untried").count()) == (20, 4)
    assert "of the 20 of 24 units tried" in page.locator("#units svg").first.text_content()
    assert "Of the 24 units of rnn.l1 20 were silenced" in page.text_content("#findings .notes")
    untried = next(j for j in range(24) if j not in made.surgery.units)
    page.evaluate(f"import('lens/state').then(m => m.set({{ unit: {untried} }}))")
    page.wait_for_timeout(80)
    assert "on average, not silenced." in page.text_content("#units .foot")
    assert page.text_content("#units h2") == "Units and surgery: rnn.l1"
    assert page.text_content("#horizon h2") == "Three horizons: rnn.l1"
    assert "stored: bits about the model's input k steps ago" in page.text_content("#horizon svg")
    ends = page.eval_on_selector_all("#river svg text", "all => all.map(e => e.textContent)")[-2:]
    assert all(re.fullmatch(r"1e−?\d+", text) for text in ends), "whole decades"


def test_a_unit_and_a_layer_are_chosen_everywhere(opened, hostile):
    page = opened(hostile)
    names = page.eval_on_selector_all("#pick-layer option", "all => all.map(e => e.textContent)")
    assert names == list(hostile.trace.layers)
    for k in range(4):
        page.select_option("#pick-layer", index=k)
        page.keyboard.press("]")
        page.wait_for_timeout(80)
        assert names[k] in page.locator("#theatre .foot").text_content()
        total = float(page.get_attribute("#ledger .foot", "data-sum"))
        unit, step = int(page.input_value("#pick-unit")), int(page.input_value("#time"))
        assert total == pytest.approx(hostile.trace[names[k] + ".c"][0, step, unit].item(), abs=1e-6)


def test_short_sequences_have_a_tick_at_every_step_and_marks_that_differ(opened):
    torch.manual_seed(0)
    model = Reader(nn.LSTM, 2, 6, 1)
    with torch.no_grad():
        model.rnn.bias_ih_l0[6:12] = 9.0  # every half-life is longer than the sequences
    page = opened(look(model, torch.randn(12, 3, 2), loss=lambda out: out[:, 0].square()))
    for view in ("score", "ledger", "river", "influence", "horizon"):
        texts = page.eval_on_selector_all(f"#{view} svg text", "all => all.map(e => e.textContent)")
        assert {"0", "1", "2"} <= set(texts), view
    marks = page.eval_on_selector_all(
        "#horizon svg[aria-label^='Half-lives'] text[text-anchor=middle]",
        "all => all.map(e => e.textContent)",
    )
    assert marks == ["0.75", "1.1", "1.5", "2.1", "steps", "> 3"]


def packed(model):
    lengths = [9, 6, 2]
    return nn.utils.rnn.pack_padded_sequence(torch.randn(3, 9, 3), lengths, batch_first=True)


torch.manual_seed(0)  # the models below are the same in every process


@pytest.mark.parametrize(("model", "inputs"), [
    (nn.GRU(3, 4, 2, batch_first=True), torch.randn(3, 9, 3)),
    (nn.RNN(3, 4, batch_first=True, bidirectional=True), torch.randn(3, 9, 3)),
    (nn.LSTM(3, 6, batch_first=True, proj_size=2), torch.randn(1, 9, 3)),
    (nn.LSTM(3, 4, batch_first=True, bidirectional=True), packed),
    (LSTM(3, 4, batch_first=True, variant=Variant(norm="per_gate")), torch.randn(3, 9, 3)),
    (LSTM(3, 4, batch_first=True, variant=Variant(coupled=True)), torch.randn(3, 9, 3)),
    (nn.LSTM(3, 1, batch_first=True), torch.randn(2, 1, 3)),
], ids=["GRU", "RNN", "projection", "packed", "normed", "coupled", "one step"])  # fmt: skip
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_every_kind_of_layer_has_its_page(opened, model, inputs):
    torch.manual_seed(0)
    x = inputs(model) if callable(inputs) and not isinstance(inputs, torch.Tensor) else inputs
    made = look(model, x)
    page = opened(made)
    layers = list(made.trace.layers)
    for k, name in enumerate(layers):
        if len(layers) > 1:
            page.select_option("#pick-layer", index=k)
        for key in ("Home", "]", "End"):
            page.keyboard.press(key)
            page.wait_for_timeout(60)
        assert name in page.locator("#theatre .foot").text_content()
        page.select_option("#pick-words", "LTM/STM")
        page.wait_for_timeout(60)
        assert page.evaluate(OUTSIDE) == []
        layer = made.trace.layers[name]
        if layer.kind == "rnn" or layer.variant.norm != "none":
            assert page.locator("#ledger .missing").count() == 1
        elif layer.mask[0].all():
            unit, step = int(page.input_value("#pick-unit")), int(page.input_value("#time"))
            memory = layer.values["c" if layer.kind == "lstm" else "h"][0, step, unit].item()
            assert float(page.get_attribute("#ledger .foot", "data-sum")) == pytest.approx(memory, abs=1e-6)


def test_views_are_taken_away_as_svg_png_and_table(opened, seen):
    page = opened(seen)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for view in VIEWS[1:]:
        taken = page.evaluate(
            "async id => (await import('lens/draw')).svgText(document.querySelector(`#${id} .body`))", view
        )
        assert taken.startswith("<svg") and "http://www.w3.org/2000/svg" in taken
        assert "var(--" not in taken, "a copy stands alone, without the page's style"
    page.click("#score button:has-text('Table')")
    page.wait_for_timeout(100)
    rows = page.evaluate("navigator.clipboard.readText()").split("\n")
    assert len(rows) == 16 and rows[0].startswith("step\ti")
    page.click("#horizon button:has-text('PNG')")
    page.locator("#horizon .said", has_text="copied").wait_for()


def test_in_a_notebook_a_frame_runs_it_and_a_picture_stays(chromium, seen):
    cell = seen._repr_html_()
    context = chromium.new_context(offline=True)
    page = context.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.set_content(f"<h1>Notebook</h1>{cell}")
    frame = next(f for f in page.frames if f.parent_frame)
    frame.wait_for_selector("html.ready", timeout=20_000)
    assert frame.eval_on_selector_all("section.view", "all => all.length") == len(VIEWS)
    assert said == []
    stripped = re.sub(r"<iframe.*?</iframe>", "", cell, flags=re.S)
    assert "<script" not in stripped and 'src="data:image/png;base64,' in stripped
    context.close()


def test_the_file_names_no_address_and_keeps_its_size(seen, hostile, tmp_path):
    for made in (seen, hostile):
        text = made.save(tmp_path / "look.html").read_text("utf8")
        assert len(text.encode()) < 1e6
        outside = re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]{2,}", re.sub(r"base64,[\w+/=]+", "", text))
        assert outside == []
        data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1]
        assert "<" not in data and json.loads(data)["title"] == made.title


def test_a_large_look_stays_below_2_megabytes_and_says_what_it_left_out(tmp_path):
    torch.manual_seed(0)
    made = look(nn.LSTM(3, 140, batch_first=True), torch.randn(6, 90, 3))
    path = made.save(tmp_path / "look.html")
    assert path.stat().st_size <= 2e6
    text = path.read_text("utf8")
    assert "It shows 5 of 6 sequences" in text and "units: those that the loss needs most" in text
    small = made.save(tmp_path / "small.html", limit=6e5)
    assert small.stat().st_size <= 6e5


def test_an_unwritable_file(seen, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"look\.html"):
        seen.save(tmp_path / "file" / "look.html")


def test_the_same_look_gives_the_same_page(seen):
    assert seen.html() == seen.html()
    assert html.escape(seen.title) in seen.html()
