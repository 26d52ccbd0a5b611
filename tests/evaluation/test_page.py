"""The page of a report tells the truth, whatever things are called, in a real browser too."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastsoftmax
from fastsoftmax.cli.main import main
from fastsoftmax.data.source import Column
from fastsoftmax.errors import DataError, OptionError
from fastsoftmax.evaluation.html import SECTIONS
from fastsoftmax.labels import given_classes
from fastsoftmax.model.model import Model
from tests.models import make_model

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = (
    "</script><script>document.title='taken'</script>",
    "<img src=x onerror=document.title='taken'>",
    "\"' onload=document.title='taken' x='",
    "&lt;b&gt; \u202eevil\x1b[31m",
)
DIGITS = ("examples/data/digits-train.parquet", "examples/data/digits-test.parquet")


def rows_of(model: Model, rows: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return random rows and labels for a model of nameless features."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(rows, model.n_features))
    return X, model.classes[random.integers(0, len(model.classes), rows)]


def page(path: Path) -> str:
    """Return a page's text."""
    return path.read_text(encoding="utf-8")


def facts_in(text: str) -> dict:
    """Return the facts that stand in a page."""
    return json.loads(
        re.search(r'<script type="application/json" id="facts">(.*?)</script>', text)[1]
    )


class Elements(HTMLParser):
    """The elements of a page in order, each with its attributes; all that open are closed."""

    VOID = frozenset(["meta", "img", "link", "br", "input"])

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_page_holds_the_facts_of_the_report(tmp_path):
    model = fastsoftmax.train(DIGITS[0], "digit", epochs=3, learning_rate=0.001, holdout=0.1)
    report = fastsoftmax.write_report(model, DIGITS[1], tmp_path / "r.html")
    assert str(report) == str(fastsoftmax.evaluate(model, DIGITS[1]))
    text = page(tmp_path / "r.html")
    told = facts_in(text)
    assert told["report"] == report.as_dict()
    assert told["history"] == model.history
    assert told["judged_on"] == [{"name": "digits-test.parquet", "rows": 360}]
    assert told["trained_on"] == [{"name": "digits-train.parquet", "rows": 1437}]
    heads = re.findall(r"<h2[^>]*>(.*?)</h2>", text)
    assert heads == [head for _, head in SECTIONS]
    assert f"{100 * report.accuracy:.2f} %" in text
    assert text.count("<svg") == 2
    assert not Elements(text).open


def test_the_most_surprising_rows_are_those_of_largest_loss(tmp_path):
    model = fastsoftmax.train(DIGITS[0], "digit", epochs=3, learning_rate=0.001)
    fastsoftmax.write_report(model, DIGITS[1], tmp_path / "r.html")
    table = pq.read_table(DIGITS[1])
    p, y = model.predict_proba(DIGITS[1]), table["digit"].to_numpy()
    own = p[np.arange(len(y)), y]
    worst = np.argsort(own, kind="stable")[:20]
    told = facts_in(page(tmp_path / "r.html"))["surprises"]
    np.testing.assert_allclose([row["p_given"] for row in told], own[worst], rtol=1e-4)
    assert [row["given"] for row in told] == y[worst].tolist()
    assert [row["predicted"] for row in told] == p[worst].argmax(axis=1).tolist()
    assert re.search(rf"digits-test\.parquet.*row {worst[0]}$", told[0]["place"])
    name, value, added = told[0]["reasons"][0]
    j = model.feature_names.index(name)
    assert value == table["pixels"][int(worst[0])][j].as_py()
    assert added > 0


def test_rows_without_weight_surprise_nobody(tmp_path):
    model = make_model(3, 4, named=False)
    X, y = rows_of(model)
    w = (np.arange(len(y)) % 2).astype(float)
    report = fastsoftmax.write_report(model, X, tmp_path / "r.html", target=y, weight=w)
    assert report.rows == 100
    places = [row["place"] for row in facts_in(page(tmp_path / "r.html"))["surprises"]]
    assert len(places) == 20
    assert all(int(place.split()[-1]) % 2 == 1 for place in places)


def hostile_page(folder: Path) -> Path:
    """Write a page in which every name is hostile; return where it is."""
    columns = tuple(Column(name) for name in HOSTILE)
    options = {"epochs": HOSTILE[0], HOSTILE[1]: 1}
    made = make_model(4, 4, named=False)
    record = {**made.record, "options": options, "target": HOSTILE[0], "ended": HOSTILE[1],
              "versions": {"fastsoftmax": HOSTILE[2]},
              "data": [{"name": HOSTILE[1], "rows": 3}]}  # fmt: skip
    model = Model(made.weights, made.bias, given_classes(HOSTILE), columns, made.history, record)
    X, y = rows_of(model)
    data = pa.table({**dict(zip(HOSTILE, X.T, strict=True)), "y": y})
    place = folder / "<b>'\" &amp; rows.parquet"
    pq.write_table(data, place)
    fastsoftmax.write_report(model, str(place), folder / "r.html", target="y")
    return folder / "r.html"


def test_hostile_names_stay_text(tmp_path):
    text = page(hostile_page(tmp_path))
    elements = Elements(text)
    assert not elements.open
    assert [tag for tag, _ in elements.found].count("script") == 2
    assert not {"img", "b", "iframe", "object"} & {tag for tag, _ in elements.found}
    allowed = {"class", "id", "style", "href", "role", "lang", "scope", "charset", "content",
               "name",
               "http-equiv", "type", "tabindex", "viewbox", "points", "transform", "cx", "cy", "r",
               "x", "y", "x1", "x2", "y1", "y2", "width", "height", "data-value"}  # fmt: skip
    given = {name for _, attributes in elements.found for name in attributes}
    assert {name for name in given - allowed if not name.startswith("aria-")} == set()
    assert "\x1b" not in text
    assert "\u202e" not in text
    told = facts_in(text)
    assert [line["label"] for line in told["report"]["per_class"]] == sorted(
        HOSTILE, key=str.encode
    )


def test_a_page_asks_for_nothing_from_elsewhere(tmp_path):
    text = page(hostile_page(tmp_path))
    for tag, attributes in Elements(text).found:
        assert tag != "link"
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert "url(" not in text


def test_one_epoch_has_an_axis_and_options_without_a_value_have_no_line(tmp_path):
    model = fastsoftmax.train(DIGITS[0], "digit", epochs=1, learning_rate=0.001)
    fastsoftmax.write_report(model, DIGITS[1], tmp_path / "r.html")
    text = page(tmp_path / "r.html")
    chart = text[text.index("Log-loss over the rows seen, in 1 epoch") :].partition("</svg>")[0]
    assert re.findall(r'class="middle">([\d,]+)</text>', chart) == ["0", "500", "1,000"]
    assert "learning_rate" in text
    assert ">halflife<" not in text


def test_many_classes_keep_a_page_small(tmp_path):
    model = make_model(1200, 8, named=False)
    X, y = rows_of(model, 2000)
    fastsoftmax.write_report(model, X, tmp_path / "r.html", target=y)
    told = facts_in(page(tmp_path / "r.html"))
    assert told["report"]["confusion"] is None
    assert len(told["features"]) == 100
    assert (tmp_path / "r.html").stat().st_size < 2e6


def test_a_class_that_training_never_saw_costs_an_infinite_prior(tmp_path):
    model = make_model(2, 3, named=False)
    model.record["prior"] = [1.0, 0.0]
    X, y = rows_of(model)
    report = fastsoftmax.write_report(model, X, tmp_path / "r.html", target=y)
    assert report.log_loss_prior == np.inf
    assert "Right in" in page(tmp_path / "r.html")


def test_a_page_is_the_same_bytes_twice(tmp_path):
    model = make_model(3, 4, named=False)
    X, y = rows_of(model)
    for name in "ab":
        fastsoftmax.write_report(model, X, tmp_path / name, target=y)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_page_that_cannot_be_made_leaves_nothing(tmp_path):
    model = make_model(3, 4, named=False)
    X, y = rows_of(model)
    with pytest.raises(OptionError, match="does not exist"):
        fastsoftmax.write_report(model, X, tmp_path / "no" / "r.html", target=y)
    X[3, 1] = np.nan
    with pytest.raises(DataError, match="row 3"):
        fastsoftmax.write_report(model, X, tmp_path / "r.html", target=y)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_page_and_says_how_good(tmp_path, capsys):
    model = fastsoftmax.train(DIGITS[0], "digit", epochs=1, learning_rate=0.001)
    model.save(tmp_path / "m.safetensors")
    given = ["report", f"{tmp_path}/m.safetensors", DIGITS[1], "-o"]
    assert main([*given, f"{tmp_path}/r.html"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("rows               360\n")
    assert out.endswith(f"page               {tmp_path}/r.html\n")
    assert main([*given, f"{tmp_path}/m.safetensors"]) == 2
    assert "also an input" in capsys.readouterr().err


PROBE = """
<script>
const errors = [];
addEventListener("error", event => errors.push(event.message));
addEventListener("securitypolicyviolation", event => errors.push(event.blockedURI));
addEventListener("load", () => {
  const load = performance.now();
  const buttons = [...document.querySelectorAll("th button")];
  const table = document.querySelector("table.sorted");
  const column = () => [...table.tBodies[0].rows].map(row => row.cells[1].textContent);
  const before = column();
  const button = table.tHead.rows[0].cells[1].querySelector("button");
  button.focus();
  const focused = document.activeElement === button;
  button.click();
  parent.postMessage(JSON.stringify({
    errors, focused, before, after: column(), buttons: buttons.length, title: document.title,
    load, width: innerWidth, wide: document.documentElement.scrollWidth,
    page: getComputedStyle(document.body).backgroundColor,
    named: [...document.querySelectorAll("svg,.scroll")].every(e => e.getAttribute("aria-label")),
  }), "*");
});
</script>
"""


# A window of Chromium is 500 pixels wide at least, a frame in it is not.
FRAME = """<!doctype html><body style="margin:0"><script>
addEventListener("message", event => { document.body.dataset.found = event.data; });
</script><iframe src="probe.html" style="border:0;width:{width}px;height:900px"></iframe></body>
"""


def probed(path: Path, *flags: str, width: int = 1280) -> dict:
    """Open a page in headless Chromium and return what a script in it finds."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium to open a page with")
    probe = path.with_name("probe.html")
    probe.write_text(page(path).replace("<title>", f"{PROBE}<title>", 1), encoding="utf-8")
    frame = path.with_name("frame.html")
    frame.write_text(FRAME.replace("{width}", str(width)))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,900"]
    home = f"--user-data-dir={path.parent / 'browser'}"
    command = [CHROMIUM, *options, home, *flags, "--dump-dom", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (body,) = [a for tag, a in Elements(done.stdout).found if tag == "body"]
    return json.loads(body["data-found"])


def test_a_hostile_page_runs_nothing_of_its_names_in_a_browser(tmp_path):
    found = probed(hostile_page(tmp_path))
    assert found["errors"] == []
    assert "taken" not in found["title"].replace(HOSTILE[0], "")


@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_fits_phones_and_desks_and_is_sorted_by_keyboard(tmp_path, width):
    model = fastsoftmax.train(DIGITS[0], "digit", epochs=3, learning_rate=0.001, holdout=0.1)
    fastsoftmax.write_report(model, DIGITS[1], tmp_path / "r.html")
    found = probed(tmp_path / "r.html", width=width)
    assert found["width"] == width
    assert found["errors"] == []
    assert found["wide"] <= found["width"]
    assert found["focused"]
    assert found["named"]
    assert found["after"] == sorted(found["before"], key=float) != found["before"]
    assert found["page"] == "rgb(255, 255, 255)"


def test_a_printed_page_has_all_of_its_tables(tmp_path):
    """On paper nothing can be moved aside; A4 without its edges is some 690 pixels wide."""
    model = fastsoftmax.train(DIGITS[0], "digit", epochs=1, learning_rate=0.001)
    file = tmp_path / ("a" * 30 + "-" + "b" * 60 + ".parquet")
    shutil.copy(DIGITS[1], file)
    fastsoftmax.write_report(model, file, tmp_path / "r.html")
    text = page(tmp_path / "r.html").replace("@media print", "@media all")
    (tmp_path / "r.html").write_text(text, encoding="utf-8")
    assert probed(tmp_path / "r.html", width=690)["wide"] <= 690


def test_a_page_is_dark_where_that_is_asked_for(tmp_path):
    model = make_model(3, 4, named=False)
    X, y = rows_of(model)
    fastsoftmax.write_report(model, X, tmp_path / "r.html", target=y)
    found = probed(tmp_path / "r.html", "--blink-settings=preferredColorScheme=0")
    assert found["page"] == "rgb(20, 24, 29)"
    assert found["load"] < 1000
