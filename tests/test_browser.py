"""The page in a real browser: it opens without a complaint, folds, zooms, and shows the critical path."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from browser import Browser, browser, chromium
from conftest import INFERENCE, compiled
from test_page import page
from tiers import in_turn, spread

from dagc.base.picture_words import THEMES, Theme
from dagc.base.units import TIME, show
from dagc.view.draw.palette import PALETTE
from dagc.view.facts.findings import step_name

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the pages of examples: each is written when it is first opened."""
    return tmp_path_factory.mktemp("pages")


def opened(chrome: Browser, path: Path) -> None:
    if not path.exists():
        path.write_text(page(path.stem), encoding="utf-8")
    chrome.complaints.clear()
    chrome.open(path)
    assert chrome.run("document.documentElement.dataset.ready") == "yes"


@pytest.mark.parametrize("name", spread([p.stem for p in INFERENCE], {"plan_a", "plan_b", "residual_streams"}))
def test_every_example(chrome: Browser, pages: Path, name: str) -> None:
    chrome.look()
    opened(chrome, pages / f"{name}.html")
    plan = compiled(name)
    assert chrome.run("document.querySelectorAll('.critical-path').length") == len(plan.phases)
    largest = max(next(iter(plan.phases.values())).path, key=lambda s: s.time_s)
    bars = "[...document.querySelector('.critical-path').querySelectorAll('[data-tip]')]"
    widest = f"{bars}.sort((a, b) => b.width.baseVal.value - a.width.baseVal.value)[0].dataset.tip"
    assert str(chrome.run(widest)).startswith(f"{step_name(largest)}: {largest.kind}")
    assert show(largest.time_s, TIME) in chrome.run(widest)
    assert chrome.run("document.querySelectorAll('.node.critical').length") > 0
    path = "document.querySelector('.path.critical').getBoundingClientRect().width"
    assert chrome.run(path) > 0
    assert chrome.complaints == []


@pytest.mark.parametrize(("width", "dark"), in_turn([400, 1240], [False, True]))
def test_no_page_is_wider_than_its_window(chrome: Browser, pages: Path, width: int, dark: bool) -> None:
    chrome.look(dark=dark, width=width)
    opened(chrome, pages / "plan_a.html")
    assert chrome.run("document.documentElement.scrollWidth") <= width
    paper = chrome.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)")
    cut = "[...document.querySelectorAll('svg.layer text')].filter(t => t.getBBox().width > 240).length"
    assert chrome.run(cut) == 0
    assert chrome.complaints == []


SMALL_OR_CUT = """(() => {
  const found = [];
  const seen = (node) => node.getClientRects().length > 0;
  const scrolls = (node) => node && (['auto', 'scroll'].includes(getComputedStyle(node).overflowX) || scrolls(node.parentElement));
  for (const svg of document.querySelectorAll('svg.fig')) {
    if (!seen(svg)) continue;
    const frame = svg.getBoundingClientRect(), scale = frame.width / svg.viewBox.baseVal.width;
    for (const text of svg.querySelectorAll('text')) {
      const box = text.getBoundingClientRect(), size = parseFloat(getComputedStyle(text).fontSize) * scale;
      if (size < 10.99) found.push(`${text.textContent}: ${size} px`);
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        found.push(`${text.textContent}: outside of ${svg.getAttribute('class')}`);
    }
    const room = svg.closest('.figure').getBoundingClientRect();
    if (room.right > innerWidth + 1) found.push(`${svg.getAttribute('class')}: its frame is wider than the window`);
  }
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode, owner = text.parentElement, range = document.createRange();
    if (!text.data.trim() || owner.closest('svg, script, style') || !seen(owner)) continue;
    range.selectNodeContents(text);
    if (parseFloat(getComputedStyle(owner).fontSize) < 10.99) found.push(`${text.data}: ${getComputedStyle(owner).fontSize}`);
    if (range.getBoundingClientRect().right > innerWidth + 1 && !scrolls(owner)) found.push(`${text.data}: cut`);
  }
  return found;
})()"""


@pytest.mark.parametrize(
    ("name", "width"), spread(product(["plan_a", "deepseek_v3_h800"], [420, 1400]), lambda case: case[0] == "plan_a")
)
def test_all_words_are_large_enough_and_none_is_cut(chrome: Browser, pages: Path, name: str, width: int) -> None:
    """Figures keep their size and scroll in their frames where the window is narrow; everything is unfolded."""
    chrome.look(width=width)
    opened(chrome, pages / f"{name}.html")
    chrome.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert chrome.run("[...document.querySelectorAll('svg.fig text')].length") > 200
    assert chrome.run(SMALL_OR_CUT) == []
    chrome.run("document.querySelector('svg.fig').style.width = '50px'")
    assert chrome.run(SMALL_OR_CUT) != [], "what measures sees a figure that shrank"


@pytest.mark.parametrize("theme", THEMES)
def test_a_picture_is_light_or_dark(chrome: Browser, theme: Theme, tmp_path: Path) -> None:
    """An SVG file by itself: as the screen is, or as it was asked for."""
    path = tmp_path / "layer.svg"
    path.write_text(compiled("plan_a").svg("prefill", "layer", theme=theme), encoding="utf-8")
    for dark in (False, True):
        chrome.look(dark=dark)
        chrome.open(path)
        shown = "dark" if theme == "dark" or (theme == "auto" and dark) else "light"
        for selector, name in {
            ".paper": "paper",
            ".head": "ink",
            ".soft": "soft",
            "rect.h4": "h4",
            ".arrow": "edge",
        }.items():
            colour = PALETTE[name].of(shown)
            rgb = f"rgb({', '.join(str(int(colour[k : k + 2], 16)) for k in (1, 3, 5))})"
            assert chrome.run(f"getComputedStyle(document.querySelector('{selector}')).fill") == rgb, selector


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_page_of_one_theme(chrome: Browser, theme: Theme, tmp_path: Path) -> None:
    """It is so on every screen, and has no button to switch."""
    path = tmp_path / "page.html"
    path.write_text(compiled("plan_b").html(theme=theme), encoding="utf-8")
    for dark in (False, True):
        chrome.look(dark=dark)
        opened(chrome, path)
        paper = "rgb(20, 23, 28)" if theme == "dark" else "rgb(255, 255, 255)"
        assert chrome.run("getComputedStyle(document.body).backgroundColor") == paper
        assert chrome.run("document.querySelectorAll('[aria-label^=\"switch\"]').length") == 0
    assert chrome.complaints == []


def test_folding_by_keyboard(chrome: Browser, pages: Path) -> None:
    chrome.look()
    opened(chrome, pages / "plan_a.html")
    first = "document.querySelector('main details')"
    chrome.run(f"{first}.querySelector('summary').focus()")
    height = f"{first}.getBoundingClientRect().height"
    before = chrome.run(height)
    chrome.key("Enter")
    assert chrome.run(f"{first}.open") is False and chrome.run(height) < before / 2
    chrome.key("Enter")
    assert chrome.run(f"{first}.open") is True and chrome.run(height) == before
    chrome.run("document.querySelector('[aria-label^=\"fold\"]').click()")
    assert chrome.run("document.querySelectorAll('details[open]').length") == 0
    assert chrome.complaints == []


@pytest.mark.parametrize("width", [420, 1240])
def test_the_navigation_stays_and_marks_where_one_is(chrome: Browser, pages: Path, width: int) -> None:
    chrome.look(width=width)
    opened(chrome, pages / "plan_a.html")
    chrome.run("document.documentElement.style.scrollBehavior = 'auto'")
    settled = "new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"
    marked = "document.querySelector('.ways [aria-current]')?.hash ?? ''"
    assert chrome.run(marked) == "", "nothing is marked where the answer is read"
    links = chrome.run("[...document.querySelectorAll('.ways a')].map((a) => a.hash)")
    assert links[:4] == ["#requirements", "#plan", "#phase-prefill", "#phase-decode"] and links[-1] == "#assumptions"
    chrome.run("document.querySelector('.ways a').focus()")
    for link in links[1:]:
        chrome.key("Tab")
        assert chrome.run("document.activeElement.hash") == link
        chrome.key("Enter")
        for _ in range(200):  # frames: a busy machine draws late
            chrome.run(settled)
            if chrome.run(marked) == link:
                break
        assert chrome.run(marked) == link
        top = f"document.querySelector('{link}').getBoundingClientRect().top"
        bar = "document.querySelector('.ways').getBoundingClientRect()"
        assert chrome.run(f"{bar}.top") == 0 and chrome.run(f"{top} >= {bar}.bottom - 4"), "nothing is under the bar"
        box = f"document.querySelector('.ways [href=\"{link}\"]').getBoundingClientRect()"
        assert chrome.run(f"{box}.left >= 0 && {box}.right <= innerWidth + 1"), "the marked link is in sight"
        chrome.run(f"document.querySelector('.ways [href=\"{link}\"]').focus({{ preventScroll: true }})")
    assert chrome.complaints == []


def test_zoom_tooltips_and_theme_by_keyboard(chrome: Browser, pages: Path) -> None:
    chrome.look()
    opened(chrome, pages / "plan_a.html")
    view = "document.querySelector('svg.timeline').getAttribute('viewBox')"
    whole = chrome.run(view)
    chrome.run("document.querySelector('svg.timeline').parentNode.focus()")
    chrome.key("+")
    assert float(chrome.run(view).split()[2]) == pytest.approx(float(whole.split()[2]) / 1.5)
    chrome.key("0")
    assert [float(x) for x in chrome.run(view).split()] == [float(x) for x in whole.split()]
    chrome.run("document.querySelector('summary').focus()")
    chrome.key("Tab")
    chrome.run("document.querySelector('g.node').focus()")
    tip = "(t => t.hidden ? '' : t.textContent)(document.querySelector('.tip'))"
    assert chrome.run(tip).startswith("gqa.h: divided by the root of the mean square; bound by")
    chrome.run("document.querySelector('[aria-label^=\"switch\"]').click()")
    assert chrome.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
    assert chrome.complaints == []


def test_contrast(chrome: Browser, pages: Path) -> None:
    """Words on what is behind them, at least 4.5 to 1 in light and dark."""
    script = """(() => {
      const probe = document.createElement('i');
      document.body.append(probe);
      const luminance = (name) => {
        probe.style.color = `var(--${name})`;
        const parts = getComputedStyle(probe).color.match(/[0-9]+/g).slice(0, 3).map((c) => c / 255);
        const [r, g, b] = parts.map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const pairs = ['ink', 'soft', 'critical', 'good', 'bad', 'warn', 'link'].flatMap((w) => [[w, 'paper'], [w, 'panel']]);
      pairs.push(['on-busy', 'busy'], ['ink', 'box']);
      return Math.min(...pairs.map(([a, b]) => {
        const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
        return (high + 0.05) / (low + 0.05);
      }));
    })()"""
    for dark in (False, True):
        chrome.look(dark=dark)
        opened(chrome, pages / "plan_a.html")
        assert chrome.run(script) >= 4.5


def test_paper_shows_what_is_folded(chrome: Browser, pages: Path) -> None:
    chrome.look()
    opened(chrome, pages / "plan_b.html")
    chrome.run("document.querySelectorAll('details').forEach((d) => { d.open = false; })")
    folded = len(chrome.pdf())
    opened(chrome, pages / "plan_b.html")
    assert folded == pytest.approx(len(chrome.pdf()), rel=0.05)


def test_the_policy_stops_a_foreign_script(chrome: Browser, pages: Path) -> None:
    html = page("plan_a")
    (pages / "evil.html").write_text(html.replace("</main>", "<script>window.bad = 1</script></main>"), "utf-8")
    chrome.complaints.clear()
    chrome.open(pages / "evil.html")
    assert chrome.run("window.bad") is None
    assert any("Content Security Policy" in c for c in chrome.complaints)


def test_the_gpu_map_changes_its_colours(chrome: Browser, pages: Path) -> None:
    """Buttons colour by another axis; arrow keys go from GPU to GPU, whose hint shows and whose group is outlined."""
    chrome.look()
    opened(chrome, pages / "plan_a.html")
    cells = "[...document.querySelector('.gpu-map').querySelectorAll('[data-at]')]"
    looks = (
        f"{cells}.map(c => c.querySelector('rect').getAttribute('class') + ' ' + c.querySelector('.num').textContent)"
    )
    buttons = "[...document.querySelector('.colours').querySelectorAll('button')]"
    shown = "[...document.querySelector('.gpu-map').querySelectorAll('[data-by]')].filter(p => !p.hidden).map(p => p.dataset.by)"
    assert chrome.run(looks) == [f"g{gpu // 16} {gpu // 16}" for gpu in range(64)]
    assert chrome.run(shown) == ["pp"] and chrome.run(f"{buttons}.length") == 9
    press = "{0}.find(b => b.textContent === '{1}').click()"
    for words, number in (("tp", lambda g: g % 2), ("tp group", lambda g: g // 2), ("phases", lambda g: 1 - g // 32)):
        chrome.run(press.format(buttons, words))
        assert chrome.run(looks) == [f"g{number(g) % 8} {number(g)}" for g in range(64)]
        assert chrome.run(shown) == [words.replace(" ", "-")]
        assert chrome.run(
            f"{buttons}.filter(b => b.getAttribute('aria-pressed') === 'true').map(b => b.textContent)"
        ) == [words]
    chrome.run(press.format(buttons, "pp"))
    chrome.run("document.querySelector('.colours button:last-of-type').focus()")
    chrome.key("Tab")
    chrome.key("ArrowRight")
    chrome.key("ArrowDown")
    assert chrome.run("document.activeElement.dataset.tip").startswith(
        "GPU 9, node 1: pp 0, ep 2, sp 0, tp 1; experts 8..11; "
    )
    tip = "(t => t.hidden ? '' : t.textContent)(document.querySelector('.tip'))"
    assert chrome.run(tip).startswith("GPU 9, node 1")
    assert chrome.run("document.querySelectorAll('.gpu-map .same').length") == 16
    assert chrome.complaints == []
