"""Pages in a browser: drawn charts, tooltips, keys, enlarged images, and no requests.

These tests want Chromium, and skip where there is none.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from report_pages import HISTOGRAMS, numbers_in

from ms2.report import write_report
from ms2.report.learning import read_logs

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("chromium"))
    yield started
    started.close()


def test_a_page_opens_without_complaints_or_requests(browser: Browser, any_folder: Path) -> None:
    browser.open(write_report(any_folder))
    assert browser.run("document.compatMode") == "CSS1Compat"
    assert browser.run("window.hacked") is None
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert browser.run("document.images.length") > 0 and browser.run(broken) == 0
    assert browser.run(
        "[...document.querySelectorAll('.chart')].every(c => c.offsetHeight > 120 && c.offsetWidth > 250)"
    )
    assert browser.complaints() == []


def test_the_browser_itself_lets_nothing_else_run(browser: Browser, dataset: Path, tmp_path: Path) -> None:
    """Even if escaping failed: script and image of somebody else, written right into the page, do nothing."""
    text = write_report(dataset).read_text()
    foreign = '<script>window.hacked = 1</script><img src="http://127.0.0.1:9/x.png" onerror="window.hacked = 1">'
    (tmp_path / "page.html").write_text(text.replace("<main>", f"<main>{foreign}"))
    browser.open(tmp_path / "page.html")
    assert browser.run("window.hacked") is None
    assert any("Content Security Policy" in complaint for complaint in browser.complaints())


def test_boxes_and_classes_can_be_hidden(browser: Browser, dataset: Path) -> None:
    browser.open(dataset / "report.html")
    boxes, masks = browser.visible(".groups .box rect"), browser.visible(".groups .masks image")
    records = [json.loads(path.read_text()) for path in sorted((dataset / "scenes").iterdir())]
    shown = [records[i * 30 // 24] for i in range(24)]
    assert boxes == sum(len(record["labels"]) for record in shown) and masks == 0
    browser.point("[name=boxes]", click=True)
    browser.point("[name=masks]", click=True)
    assert browser.visible(".groups .box rect") == 0
    assert browser.visible(".groups .masks image") == sum(len({x["category"] for x in r["labels"]}) for r in shown)
    browser.point("[name=boxes]", click=True)
    assert browser.visible(".groups .box rect") == boxes
    name = browser.run("document.querySelector('.classes label').childNodes[2].textContent")
    browser.point("[name=class]", click=True)
    others = sum(label["category"] != name for record in shown for label in record["labels"])
    assert browser.visible(".groups .box rect") == others < boxes
    assert browser.visible('.groups [data-class="0"]') == 0 < browser.visible(".groups .masks image")


def test_boxes_can_be_hidden_without_scripts(browser: Browser, run: Path) -> None:
    browser.allow_scripts(False)
    try:
        browser.open(run / "report.html")
        assert browser.visible(".box rect") > 0
        browser.point("[name=boxes]", click=True)
        assert browser.visible(".box rect") == 0
    finally:
        browser.allow_scripts(True)


def test_boxes_lie_on_their_images(browser: Browser, dataset: Path) -> None:
    """Pixels of the page: a rectangle's place over that of its image, times the image's size, is the box."""
    browser.open(dataset / "report.html")
    found = browser.run(
        """[...document.querySelectorAll('.groups .tile')].flatMap(tile => {
          const i = tile.querySelector('img').getBoundingClientRect(), k = 48 / i.width;
          return [...tile.querySelectorAll('.box rect')].map(r => { const b = r.getBoundingClientRect();
            return [[(b.x - i.x) * k, (b.y - i.y) * k, b.width * k, b.height * k],
                    ['x', 'y', 'width', 'height'].map(n => Number(r.getAttribute(n)))] }) })"""
    )
    places, boxes = np.array(found).swapaxes(0, 1)
    np.testing.assert_allclose(places, boxes, atol=0.8)  # the stroke is 1.5 pixels of about 200


TIP = "document.getElementById('tip').textContent"


def test_every_chart_is_drawn(browser: Browser, any_folder: Path) -> None:
    """Folded ones too, once they are opened."""
    browser.open(write_report(any_folder))
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    browser.wait_for("[...document.querySelectorAll('.plot')].every(e => 'drawn' in e.dataset)")
    sizes = browser.run("[...document.querySelectorAll('.plot svg.marks')].map(e => [e.clientWidth, e.clientHeight])")
    assert len(sizes) == browser.run("document.querySelectorAll('.plot').length") > 4
    assert all(width > 200 and height > 20 for width, height in sizes)
    labels = browser.run("[...document.querySelectorAll('.plot')].map(e => e.ariaLabel)")
    assert all(re.search(r"\d", label) for label in labels), "numbers in words"
    assert browser.complaints() == []


def test_pointing_tells_values(browser: Browser, run: Path) -> None:
    browser.open(run / "report.html")
    assert browser.run("document.getElementById('tip').hidden")
    browser.point("#histograms .plot svg")
    lines = browser.run(TIP).split("\n")
    told = HISTOGRAMS[0]
    assert lines[0] == told.bins[1], "the middle of three"
    assert {line.split(":")[0]: numbers_in(line.split(":")[1])[0] for line in lines[1:]} == {
        who: pytest.approx(100 * shares[1], rel=6e-3) for who, shares in told.shares.items()
    }
    assert browser.visible("#tip") == 1
    browser.point("h1")
    assert browser.visible("#tip") == 0
    browser.point("#images .box")
    assert re.fullmatch(r"\d, \d+ % visible\n\d+ × \d+ px", browser.run(TIP))


def test_a_cursor_selects_steps_of_a_curve(browser: Browser, run: Path) -> None:
    """By pointer, and by keys."""
    score = read_logs(run)["train/score"]
    browser.open(run / "report.html")
    browser.point("#learning .plot svg")
    step, value = (numbers_in(line)[0] for line in browser.run(TIP).split("\n"))
    assert 10 < step < 30
    assert score.values[score.steps.index(int(step))] == pytest.approx(value, rel=1e-3)
    browser.point("h1")
    rules = "[...document.querySelectorAll('#learning .plot')[0].querySelectorAll('.mark-rule.role-mark line')]"
    shown = f"{rules}.filter(e => Number(e.getAttribute('opacity') ?? e.style.opacity ?? 1) > 0).length"
    assert browser.run(shown) == 0
    browser.focus("#learning .plot")
    for wanted in (0, 1):
        browser.press("ArrowRight")
        text = browser.run(TIP)
        assert numbers_in(text)[:2] == [score.steps[wanted], pytest.approx(score.values[wanted], rel=1e-3)]
        assert browser.visible("#tip") == 1 == browser.run(shown)
    browser.press("ArrowLeft")
    assert numbers_in(browser.run(TIP))[0] == score.steps[0]


def test_keys_tell_the_values_of_every_chart(browser: Browser, run: Path) -> None:
    browser.open(run / "report.html")
    number = browser.visible(".plot")
    for i in range(number):
        browser.focus(".plot", i)
        browser.press("ArrowRight")
        assert browser.run(TIP) and browser.visible("#tip") == 1
    assert browser.complaints() == []


def test_charts_follow_the_width_of_the_window(browser: Browser, run: Path) -> None:
    browser.open(run / "report.html", 1280)
    width = "document.querySelector('#rule-changes .plot svg').clientWidth"
    wide = browser.run(width)
    browser("Emulation.setDeviceMetricsOverride", width=500, height=900, deviceScaleFactor=1, mobile=False)
    browser.wait_for(f"{width} < 500")
    assert wide > 600


def test_without_scripts_the_numbers_are_in_tables(browser: Browser, run: Path) -> None:
    browser.allow_scripts(False)
    try:
        browser.open(run / "report.html")
        assert browser.visible("#time table") == 1
        assert browser.visible("#histograms noscript p") == len(HISTOGRAMS)
    finally:
        browser.allow_scripts(True)


def test_an_image_can_be_enlarged(browser: Browser, run: Path) -> None:
    browser.open(run / "report.html")
    width = browser.run("document.querySelector('.groups .tile').clientWidth")
    assert browser.visible("dialog") == 0
    browser.point(".groups .tile", click=True)
    name = "document.querySelector('dialog p').textContent.split(':')[0]"
    assert browser.run("document.querySelector('dialog .tile').clientWidth") > 3 * width
    assert browser.run(name) == "prior 1"
    first = json.loads((run / "examples" / "examples.json").read_text())["prior"][0]
    assert browser.visible("dialog .box text") == len(first["labels"]) > 0 == browser.visible(".groups .box text")
    browser.press("ArrowLeft")
    assert browser.run(name) == "target 4"
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    assert browser.run(name) == "prior 2"
    browser.press("Escape")
    assert browser.visible("dialog") == 0
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [340, 768, 1280])
def test_nothing_is_wider_than_the_screen(browser: Browser, any_folder: Path, width: int) -> None:
    browser.open(write_report(any_folder), width)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.run("document.documentElement.scrollWidth") <= width


CONTRAST = """
(() => {
  const channel = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const rgb = c => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const paper = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c[3] === undefined || c[3] === 1) return c } return [255, 255, 255] };
  const worst = {};
  for (const e of document.querySelectorAll('main *, header *, nav *, footer *')) {
    if (e.closest('svg, dialog, style') || !e.getClientRects().length) continue;
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(paper(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05), name = e.tagName + '.' + e.className;
    worst[name] = Math.min(worst[name] ?? 99, ratio);
  }
  return worst;
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(browser: Browser, any_folder: Path, scheme: str) -> None:
    """Contrast of 4.5 to 1 at least, which WCAG 2.1 asks for at level AA."""
    browser.open(write_report(any_folder), scheme=scheme)
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(numbers_in(paper)[:3]) > 384) == (scheme == "light")
    ratios = browser.run(CONTRAST)
    assert len(ratios) > 10
    assert {name: round(ratio, 2) for name, ratio in ratios.items() if ratio < 4.5} == {}
