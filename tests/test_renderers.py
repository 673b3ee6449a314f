"""Pictures in renderers that are not browsers: they know neither `var()` nor media queries."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise, product
from pathlib import Path

import pytest
from conftest import ROOT, compiled, spec_text
from drawings import Shape, Words, behind, contrast, faults, parts
from PIL import Image
from pypdf import PdfReader
from tiers import in_turn, spread

import dagc
from dagc.base.picture_words import DOT_VIEWS, THEMES, TRAINING_DOT_VIEWS, TRAINING_VIEWS, VIEWS, Theme
from dagc.cli import main
from dagc.view.draw.figures.looks import LOOKS, SMALL, file_style, look, painted
from dagc.view.draw.figures.served.sheets import VIEWS as SERVED
from dagc.view.draw.figures.standalone import SHEETS
from dagc.view.draw.palette import PALETTE
from dagc.view.draw.renderers import RENDERERS, Renderer, RendererMissing, printed
from dagc.view.draw.views import VIEWS as DOT

pytestmark = pytest.mark.usefixtures("shared_servings")
Capture = pytest.CaptureFixture[str]


def name_of(one: str | Renderer) -> str:
    return one if isinstance(one, str) else one.name


@pytest.fixture(params=RENDERERS, ids=name_of)
def renderer(request: pytest.FixtureRequest) -> Renderer:
    one: Renderer = request.param
    if not one.found():
        pytest.skip(f"{one.name} is not installed")
    return one


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes these the only renderers that are installed."""

    def only(*names: str) -> None:
        own = tuple(replace(one, found=lambda here=one.name in names: here) for one in RENDERERS)
        monkeypatch.setattr("dagc.view.draw.renderers.RENDERERS", own)

    return only


@cache
def drawn(view: str, theme: Theme) -> str:
    """A picture of a phase, or of a serving."""
    if view in SERVED:
        return compiled("mixtral_8xh100").serving_svg("chat", view, theme=theme)
    return compiled("plan_a").svg("prefill", view, theme=theme)


@pytest.mark.parametrize(
    ("view", "renderer"), in_turn([*SHEETS, *SERVED], RENDERERS), indirect=["renderer"], ids=name_of
)
def test_every_part_has_the_colour_of_the_palette(view: str, renderer: Renderer) -> None:
    """One visible part of each look, as pixels of a PNG against the table; `auto` is light where there is no screen. Each renderer draws half
    of the views in either theme, and another one the other half."""
    themes: tuple[Theme, ...] = ("auto", "dark")
    theme = themes[([*SHEETS, *SERVED].index(view) // 2 + [one.name for one in RENDERERS].index(renderer.name)) % 2]
    compared(drawn(view, theme), theme, renderer)


def test_a_figure_of_a_page_that_is_saved_alone(renderer: Renderer) -> None:
    """Without the style sheet of its page."""
    figures = re.findall(r"<svg\b.*?</svg>", compiled("plan_a").html(), re.DOTALL)
    assert len(figures) > 8
    compared(next(one for one in figures if 'class="fig memory"' in one), "light", renderer)


def compared(svg: str, theme: Theme, renderer: Renderer) -> None:
    picture = Image.open(io.BytesIO(renderer.render(svg, "png", 1.0))).convert("RGB")
    shapes = [one for one in parts(svg) if isinstance(one, Shape)]
    seen: dict[str, str] = {}
    for k, shape in enumerate(shapes):
        x, y = shape.x + shape.width / 2, shape.y + 3
        covered = any(other.has(x, y) for other in shapes[k + 1 :])
        large = shape.kind == "rect" and min(shape.width, shape.height) >= 6
        if large and shape.classes not in seen and not covered:
            seen[shape.classes] = "#{:02x}{:02x}{:02x}".format(*picture.getpixel((int(x), int(y))))  # type: ignore[misc]
    wanted = {classes: PALETTE[str(look(classes)["fill"])].of(theme) for classes in seen}
    assert len(wanted) >= 2 and seen == wanted


@pytest.mark.parametrize(("name", "theme"), in_turn(["plan_a", "mixtral_8xh100"], ["light", "dark"]))
def test_words_can_be_read(name: str, theme: Theme) -> None:
    """None below 11 px, a contrast of 4.5 at least on what is behind them, none outside of the picture."""
    plan = compiled(name)
    pictures = {f"{phase} {view}": plan.svg(phase, view, theme=theme) for phase in plan.phases for view in SHEETS}
    pictures |= {f"{s} {view}": plan.serving_svg(s, view, theme=theme) for s in plan.servings for view in SERVED}
    assert {where: found for where, svg in pictures.items() if (found := faults(svg))} == {}


def test_what_reads_the_words_finds_faults() -> None:
    """The reader itself, on a drawing of which each part is known."""
    box = '<rect x="5" y="5" width="40" height="20" fill="#4b5563"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="100" height="50" fill="#ffffff" font-size="12"><g transform="translate(10 10)">{box}{{}}</g></svg>'
    assert faults(svg.format('<text x="8" y="18">fine</text>')) == []
    assert faults(svg.format('<text x="8" y="18" fill="#5b6470">pale</text>'))[0].startswith(
        "'pale': #5b6470 on #4b5563"
    )
    assert faults(svg.format('<text x="8" y="18" font-size="10.5">small</text>')) == ["'small' has 10.5 px"]
    assert faults(svg.format('<text x="95" y="18">far</text>')) == ["'far' is outside"]
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    words = [one for one in parts(svg.format('<text x="8" y="18">fine</text>')) if isinstance(one, Words)]
    assert behind(words[0], parts(svg.format('<text x="8" y="18">fine</text>'))) == "#4b5563"


def test_looks_follow_the_rules_of_style_sheets() -> None:
    """More classes win, then the later rule; what is named is in the palette, and no size is too small."""
    assert look("box critical")["stroke"] == "critical" and look("box")["stroke"] == "edge"
    assert look("curve s1") == look("s1 curve") and look("curve s1")["fill"] == "none"
    assert look("dot s1 hollow")["fill"] == "paper" and look("dot s1 hollow")["stroke"] == "s1"
    for rule, attributes in LOOKS.items():
        colours = {attributes[name] for name in ("fill", "stroke") if name in attributes}
        assert colours <= {*PALETTE, "none"}, rule
        assert float(attributes.get("font-size", SMALL)) >= SMALL
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for tone in PALETTE.values() for colour in tone)


WRITTEN_ON = {
    "ink": r"paper|panel|box|cell[01]|[mwh][0-9]|t-.+",
    "soft": r"paper|panel|box|cell[01]",
    "critical|good|bad|warn|link": r"paper|panel",
    "night": r"k-.+|g[0-9]",
    "on-s": r"s[0-9]",
    "on-busy": r"busy",
}
"""Names of words -> names of what is behind them somewhere."""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_of_the_palette(theme: Theme) -> None:
    """4.5 to 1, as WCAG 2 asks for words of this size; every colour that fills boxes with words is in the table."""
    tones = {name: tone.of(theme) for name, tone in PALETTE.items()}
    pairs = [
        (words, under)
        for of, on in WRITTEN_ON.items()
        for words in tones
        for under in tones
        if re.fullmatch(of, words) and re.fullmatch(on, under)
    ]
    assert len(pairs) > 50
    assert {pair: ratio for pair in pairs if (ratio := contrast(*map(tones.__getitem__, pair))) < 4.5} == {}


def test_only_drawings_are_painted() -> None:
    text = '<p class="soft">a</p><svg><text class="soft">class="soft"</text></svg>'
    assert painted(text.replace('"soft"<', "&quot;soft&quot;<"), "dark") == (
        '<p class="soft">a</p><svg><text class="soft" fill="#a2abb8">class=&quot;soft&quot;</text></svg>'
    )


@pytest.mark.parametrize("theme", THEMES)
def test_a_fixed_theme_asks_no_screen(theme: Theme) -> None:
    for text in (drawn("layer", theme), compiled("mixtral_8xh100").html(theme=theme)):
        assert ("(prefers-color-scheme" in text.partition("<script>")[0]) == (theme == "auto")
        assert (PALETTE["paper"].dark in text) == (theme != "light")
    assert "@media" not in file_style("dark", {"fig"}) and "var(" not in drawn("layer", theme)


def test_names_of_views() -> None:
    assert tuple(SHEETS) == VIEWS and tuple(DOT) == DOT_VIEWS


@pytest.mark.parametrize(
    ("view", "renderer"),
    spread(product([*SHEETS, *SERVED], RENDERERS), of=lambda pair: pair[1].name),
    indirect=["renderer"],
    ids=name_of,
)
def test_words_of_a_pdf_can_be_selected(view: str, renderer: Renderer) -> None:
    svg = drawn(view, "auto")
    (page,) = PdfReader(io.BytesIO(renderer.render(svg, "pdf", 1.0))).pages
    text = re.sub(r"\s+", "", page.extract_text())
    words = {re.sub(r"\s+", "", one.text) for one in parts(svg) if isinstance(one, Words)}
    assert words and {one for one in words if one not in text} == set()
    width, height = (float(side) for side in re.findall(r' (?:width|height)="(\d+)"', svg)[:2])
    assert float(page.mediabox.width) == pytest.approx(0.75 * width, abs=1)
    assert float(page.mediabox.height) == pytest.approx(0.75 * height, abs=1)


@pytest.mark.skipif(not any(one.found() for one in RENDERERS), reason="no renderer is installed")
def test_commands_write_png_and_pdf(tmp_path: Path, capsys: Capture) -> None:
    spec = str(ROOT / "examples" / "mixtral_8xh100.moe")
    show = ["show", spec, "--phase", "decode"]
    assert main([*show, "--view", "timeline", "--theme", "dark", "-o", str(tmp_path / "t.PNG")]) == 0
    picture = Image.open(tmp_path / "t.PNG").convert("RGB")
    assert "#{:02x}{:02x}{:02x}".format(*picture.getpixel((2, 2))) == PALETTE["paper"].dark  # type: ignore[misc]
    assert main([*show, "--select", "layer:3", "-o", str(tmp_path / "l.pdf")]) == 0
    assert PdfReader(tmp_path / "l.pdf").pages[0].extract_text()
    args = ["--emit", "png,pdf", "--view", "memory,path,overview", "-o", str(tmp_path / "out")]
    assert main(["compile", spec, "--phase", "decode", *args]) == 0
    made = {p.name for p in (tmp_path / "out").iterdir()} - {"mixtral_8xh100.txt"}
    views = ("memory", "path", "overview")
    assert made == {f"mixtral_8xh100.decode.{view}.{kind}" for view in views for kind in ("png", "pdf")}
    capsys.readouterr()


def test_without_a_renderer(
    tmp_path: Path, capsys: Capture, alone: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing is said before anything is written, and before a long run; Graphviz draws what it can."""
    alone()
    spec = tmp_path / "s.moe"
    spec.write_text(
        spec_text(
            extra="phase decode { gpus = 0..7, ep = 4, tp = 2 }\nserve chat { arrivals = poisson(20 req/s), requests = 20 }"
        )
    )
    for command in (
        ["show", str(spec), "--view", "memory", "-o", str(tmp_path / "m.pdf")],
        ["show", str(spec), "--theme", "dark", "-o", str(tmp_path / "o.png")],
        ["serve", str(spec), "--emit", "png", "-o", str(tmp_path / "out")],
        ["search", str(spec), "--pictures", "svg,pdf", "-o", str(tmp_path / "out")],
    ):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "error[E16]" in said and "librsvg2-bin" in said and "dagc-moe[pictures]" in said
    assert [p.name for p in tmp_path.iterdir()] == ["s.moe"]
    if shutil.which("dot") is not None:
        assert main(["show", str(spec), "--phase", "decode", "-o", str(tmp_path / "o.png")]) == 0
        assert Image.open(tmp_path / "o.png").width > 100
    monkeypatch.setenv("PATH", "")
    assert main(["show", str(spec), "--view", "map", "-o", str(tmp_path / "p.png")]) == 2
    assert "librsvg2-bin" in capsys.readouterr().err


def test_what_is_refused(tmp_path: Path, capsys: Capture) -> None:
    spec = str(ROOT / "examples" / "mixtral_8xh100.moe")
    for args, said in (
        (["show", spec, "--theme", "dark", "-o", "x.dot"], "`--theme dark` is not of `dot`"),
        (["show", spec, "--theme", "drak"], "drak"),
        (["show", spec, "--view", "path", "-o", "x.dot"], "ends in .svg, .png, .pdf"),
        (
            ["compile", spec, "--emit", "dot", "--view", "overview,memory", "-o", str(tmp_path / "o")],
            "`dot` has no memory",
        ),
        (["search", spec, "--pictures", "gif"], "`--pictures gif` is unknown"),
    ):
        assert main(args) == 2
        assert said in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_a_renderer_that_fails_says_why(renderer: Renderer) -> None:
    with pytest.raises(RendererMissing, match=renderer.name):
        renderer.render("<svg", "png", 1.0)


def test_a_picture_is_as_large_as_a_renderer_can() -> None:
    """A drawing beyond what cairo draws or a reader of PDF shows is scaled down to it, one of a usual size is sharp."""
    plan = dagc.compile_text(spec_text())
    svg = plan.svg("prefill", "memory")
    wide = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100000 100" width="100000" height="100"></svg>'
    if not any(one.found() for one in RENDERERS):
        pytest.skip("no renderer is installed")
    usual = Image.open(io.BytesIO(svg.png()))
    assert usual.width == 2 * int(re.findall(r' width="(\d+)"', svg)[0])
    assert Image.open(io.BytesIO(printed(wide, "png"))).width <= 32_000
    for drawing in (wide, svg):
        (page,) = PdfReader(io.BytesIO(printed(drawing, "pdf"))).pages
        assert 100 < page.mediabox.width <= 14_400


def test_all_views_of_every_phase(tmp_path: Path, capsys: Capture) -> None:
    """`all`: what each phase has, and of those what each kind of file has."""
    for name, views in (("llama_70b_fsdp", TRAINING_VIEWS), ("mixtral_8xh100", VIEWS)):
        main(
            [
                "compile",
                str(ROOT / "examples" / f"{name}.moe"),
                "--emit",
                "svg,dot",
                "--view",
                "all",
                "-o",
                str(tmp_path),
            ]
        )
        made = {tuple(p.name.split(".")[2:]) for p in tmp_path.glob(f"{name}.*.*.*")}
        dots = TRAINING_DOT_VIEWS if views is TRAINING_VIEWS else DOT_VIEWS
        assert made == {*((view, "svg") for view in views), *((view, "dot") for view in dots)}
    capsys.readouterr()


def test_many_kinds_of_layers_fit_into_the_card_of_a_stage() -> None:
    plan = compiled("deepseek_v4_flash_8xh200")
    svg = plan.svg("prefill", "overview", theme="light")
    assert faults(svg) == [] and "stage 0: embed, 2 × window_hashed, fine_hashed," in svg


def test_frames_of_blocks_do_not_cross() -> None:
    """A block round another one (what collapses and expands residual streams) has a frame above and one below it."""
    plan = dagc.compile_text(
        'moe 1\nhardware from "h100-sxm" { gpus = 1 }\nmodel from "mixtral-8x7b" { layers = 1, streams { count = 4 } }\n'
        "workload { sequences = 4, prompt = 64 tok, output = 8 tok }\nphase decode { gpus = 0, tp = 1 }\n"
    )
    svg = plan.svg("decode", "layer", theme="light")
    frames = [
        (float(f["y"]), float(f["y"]) + float(f["height"]))
        for f in (dict(re.findall(r'(\w+)="([^"]*)"', tag)) for tag in re.findall(r"<rect[^>]*>", svg))
        if f.get("class") == "frame"
    ]
    assert len(frames) == 8 and svg.count(", further<") == 2
    assert all(a[1] <= b[0] for a, b in pairwise(sorted(frames)))


def test_a_bar_on_a_gpu_stands_out_from_its_colour() -> None:
    """The first colour of a map and that of the KV cache are both blue: what lies round the bar is neither."""
    svg = compiled("mixtral_8xh100").svg("decode", "map", theme="light")
    assert ">free<" in svg and "bars: what decode alone takes" in svg
    assert re.search(rf'class="[a-z ]*gauge[a-z ]*"[^>]* stroke="{PALETTE["paper"].light}" stroke-width="2"', svg)
