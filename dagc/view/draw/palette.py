"""The palette: every colour of every picture and page by its name, in light and in dark."""

from __future__ import annotations

from typing import Final, NamedTuple

from ...base.picture_words import Theme


class Tone(NamedTuple):
    """A colour as `#rrggbb` in each theme."""

    light: str
    dark: str

    def of(self, theme: Theme) -> str:
        return self.dark if theme == "dark" else self.light


def _same(colour: str) -> Tone:
    return Tone(colour, colour)


PALETTE: Final[dict[str, Tone]] = {
    # Words, and what is behind them.
    "ink": Tone("#1a1a1a", "#e6e8eb"),
    "soft": Tone("#5b6470", "#a2abb8"),
    "night": _same("#1a1a1a"),
    "paper": Tone("#ffffff", "#14171c"),
    "panel": Tone("#f6f7f9", "#1c2027"),
    "box": Tone("#f3f4f6", "#242a33"),
    "cell0": Tone("#eef1f5", "#20252d"),
    "cell1": Tone("#e1e6ed", "#2a303a"),
    "busy": Tone("#4b5563", "#9aa5b4"),
    "on-busy": Tone("#ffffff", "#14171c"),
    # Lines.
    "line": Tone("#d5d9df", "#363d48"),
    "edge": Tone("#6b7280", "#939dab"),
    # Judgements.
    "critical": Tone("#b3261e", "#ff8a80"),
    "good": Tone("#00694b", "#5fd3a8"),
    "bad": Tone("#b3261e", "#ff8a80"),
    "warn": Tone("#8a5300", "#f2b84b"),
    "link": Tone("#0b57a4", "#8ab8ef"),
    "gain": _same("#009e73"),
    "loss": _same("#d55e00"),
    # Collectives, by kind: Okabe and Ito's palette for all kinds of colour vision, and lighter ones. All take dark words.
    "k-all_reduce": _same("#e69f00"),
    "k-all_gather": _same("#56b4e9"),
    "k-reduce_scatter": _same("#009e73"),
    "k-all_to_all": _same("#cc79a7"),
    "k-permute": _same("#f0e442"),
    "k-send": _same("#d55e00"),
    "k-scatter": _same("#b5a8dc"),
    "k-gather": _same("#d4c2ee"),
    "k-to_experts": _same("#bbcc33"),
    "k-from_experts": _same("#44aa99"),
    # What limits an op.
    "b-compute": _same("#6a5fc1"),
    "b-memory": _same("#88ccee"),
    "b-launch": _same("#ddcc77"),
    "b-node": _same("#2e9f57"),
    "b-cluster": _same("#b5487a"),
    "b-latency": _same("#999933"),
    "b-host": _same("#cc6677"),
    "b-host_link": _same("#a6761d"),
    # Parts of a GPU's memory; other hues than the collectives'.
    "p0": Tone("#0b3c5d", "#3f86b8"),
    "p1": Tone("#6b9ac4", "#9cc3e6"),
    "p2": Tone("#97a97c", "#b9cb9c"),
    "p3": Tone("#7b5ea7", "#a98ad6"),
    "p4": Tone("#a3a3a3", "#7d848e"),
    "p5": Tone("#8c6d46", "#c9a778"),
    # Cells of a training step: forward, whole gradients, those of inputs and of weights, four shades for chunks; words of `ink`.
    "t-f0": Tone("#c5daf1", "#213b5a"),
    "t-f1": Tone("#a4c5ea", "#28486c"),
    "t-f2": Tone("#83afe2", "#2e547f"),
    "t-f3": Tone("#669ddb", "#355f90"),
    "t-b0": Tone("#cee9db", "#244233"),
    "t-b1": Tone("#b2dcc7", "#2e5240"),
    "t-b2": Tone("#95d0b2", "#355f4a"),
    "t-b3": Tone("#7dc5a1", "#3d6e55"),
    "t-i0": Tone("#e9cee1", "#4f2c44"),
    "t-i1": Tone("#dcb2cf", "#5f3552"),
    "t-i2": Tone("#d095be", "#6f3e61"),
    "t-i3": Tone("#c57daf", "#7e466d"),
    "t-w0": Tone("#f8e1bf", "#453111"),
    "t-w1": Tone("#f4d09a", "#543b15"),
    "t-w2": Tone("#f0bf75", "#624518"),
    "t-w3": Tone("#ecb055", "#704f1c"),
    # Series of a plot; boxes of these colours take the words of `on-s`.
    "s0": Tone("#1f6fae", "#5aa9e6"),
    "s1": Tone("#b84d00", "#ff9a4d"),
    "s2": Tone("#00795a", "#35c795"),
    "s3": Tone("#9a4784", "#e08fc8"),
    "on-s": Tone("#ffffff", "#14171c"),
    # Shades of one hue, from little to much.
    "m0": Tone("#e3f4ee", "#16302a"),
    "m1": Tone("#bfe6d8", "#15403a"),
    "m2": Tone("#93d4bd", "#125246"),
    "m3": Tone("#5fbf9e", "#0e6352"),
    "m4": Tone("#2aa97e", "#06745d"),
    # Heat, from little to much.
    "h0": Tone("#fff5eb", "#2a241f"),
    "h1": Tone("#fee6ce", "#3d2e20"),
    "h2": Tone("#fdd0a2", "#553a20"),
    "h3": Tone("#fdae6b", "#70461c"),
    "h4": Tone("#fd8d3c", "#8a4b12"),
    # Groups of GPUs: Tol's light palette, made for cells with dark words.
    "g0": _same("#77aadd"),
    "g1": _same("#ee8866"),
    "g2": _same("#eedd88"),
    "g3": _same("#ffaabb"),
    "g4": _same("#99ddff"),
    "g5": _same("#44bb99"),
    "g6": _same("#bbcc33"),
    "g7": _same("#aaaa00"),
    # Groups that have no order; all take the words of `ink`.
    "w0": Tone("#e4e7ec", "#2c323c"),
    "w1": Tone("#f6d9b8", "#57401f"),
    "w2": Tone("#d9cdec", "#453763"),
    "w3": Tone("#f3c4c0", "#63302c"),
    "w4": Tone("#c9dcf0", "#274663"),
    "w5": Tone("#ece5a9", "#504a1c"),
    "w6": Tone("#e9cfe0", "#5a3450"),
    "w7": Tone("#d5d0c4", "#45413a"),
}
"""Name -> tone. Style sheets know each as `--NAME`."""


SCHEMES: Final[dict[Theme, str]] = {"auto": "light dark", "light": "light", "dark": "dark"}
"""What a page says of itself to the browser."""


def page_theme(theme: Theme) -> str:
    """The palette as variables of a page: of `auto` both, dark where the screen is or the reader chose it, light on paper."""
    if theme != "auto":
        return f":root {{ color-scheme: {SCHEMES[theme]}; {_variables(theme)} }}\n"
    light, dark = _variables("light"), _variables("dark")
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f'@media screen and (prefers-color-scheme: dark) {{ :root:not([data-theme="light"]) {{ {dark} }} }}\n'
        f'@media screen {{ :root[data-theme="dark"] {{ color-scheme: dark; {dark} }} :root[data-theme="light"] {{ color-scheme: light; }} }}\n'
    )


def _variables(theme: Theme) -> str:
    return " ".join(f"--{name}: {tone.of(theme)};" for name, tone in PALETTE.items())
