"""Builds the site from docs/, and checks every link, anchor and asset of what was built.

python tools/build_site.py [-o build/site]

Needs `pip install -e '.[docs]'`. Warnings are errors. The result needs no server and no network: open DIR/index.html.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ROOT / "docs" / "site"

ASSETS = {
    "script": ("src",), "img": ("src", "srcset"), "source": ("src", "srcset"), "iframe": ("src",), "object": ("data",),
    "link": ("href",), "video": ("src", "poster"), "audio": ("src",), "embed": ("src",), "use": ("href", "xlink:href"),
}  # fmt: skip
"""Element -> attributes that a browser fetches by itself."""
STYLE_ASSET = re.compile(r"""@import\s+["']([^"']+)|url\(\s*["']?([^"')]+)""")


class Page(HTMLParser):
    """What a page of HTML refers to and what can be referred to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.assets: list[str] = []
        self._style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self._style = tag == "style"
        self.ids |= {given[name] for name in ("id", "name") if name in given and (name == "id" or tag == "a")}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and given.get("rel") in ("canonical", "next", "prev", "index", "search", "author"):
            return  # never fetched
        self.assets += [given[name].split()[0] for name in ASSETS.get(tag, ()) if name in given]
        self.assets += style_assets(given.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self._style:
            self.assets += style_assets(data)


def style_assets(text: str) -> list[str]:
    return [a or b for a, b in STYLE_ASSET.findall(text)]


@cache
def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def faults(site: Path) -> Iterator[str]:
    """Links and anchors that lead nowhere, and assets that are missing or elsewhere."""
    for path in sorted(site.rglob("*.html")):
        where = path.relative_to(site)
        for asset in page(path).assets:
            yield from (f"{where}: {fault}" for fault in asset_faults(asset, path))
        for link in page(path).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue  # leads out of the site on purpose; nothing is fetched
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not there.is_file():
                yield f"{where}: there is no {link}"
            elif parts.fragment and there.suffix == ".html" and unquote(parts.fragment) not in page(there).ids:
                yield f"{where}: there is no part {link}"
    for path in sorted(site.rglob("*.css")):
        for asset in style_assets(path.read_text(encoding="utf-8")):
            yield from (f"{path.relative_to(site)}: {fault}" for fault in asset_faults(asset, path))


def asset_faults(asset: str, path: Path) -> Iterator[str]:
    parts = urlsplit(asset)
    if parts.scheme == "data" or asset.startswith("#"):
        return
    if parts.scheme or parts.netloc:
        yield f"fetches {asset}"
    elif not (path.parent / unquote(parts.path)).is_file():
        yield f"there is no {asset}"


def build(out: Path) -> int:
    """0: built, and every link leads somewhere."""
    from sphinx.cmd.build import main  # noqa: PLC0415 - the check of a site needs no Sphinx

    with tempfile.TemporaryDirectory() as trees:
        options = ["-q", "-W", "--keep-going", "-n", "-E", "-j", "auto", "-b", "html", "-c", str(SETTINGS), "-d", trees]
        if code := main([*options, str(ROOT), str(out)]):
            return code
    found = list(faults(out))
    for fault in found:
        print(fault, file=sys.stderr)
    pages = sum(1 for _ in out.rglob("*.html"))
    print(f"{out / 'index.html'}: {pages} pages, {f'{len(found)} faults' if found else 'every link leads somewhere'}")
    return 1 if found else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="builds the site from docs/ and checks its links")
    parser.add_argument("-o", metavar="DIR", type=Path, default=ROOT / "build" / "site", dest="out")
    raise SystemExit(build(parser.parse_args().out.resolve()))
