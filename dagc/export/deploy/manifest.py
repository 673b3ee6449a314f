"""Documents of YAML as Kubernetes reads them, with comments before each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from ...base.frozen import record

if TYPE_CHECKING:
    import yaml

GUESSED = re.compile(r"[-+.]?\d.*|[yn~]|\.(inf|nan)|[-+]\.inf", re.IGNORECASE | re.DOTALL)
"""Text that one of the readers of YAML 1.1 and 1.2 takes for something else; PyYAML quotes only what it would misread itself."""


@record
class Document:
    """`comments`: a line each."""

    content: Mapping[str, object]
    comments: tuple[str, ...] = ()


def text(documents: Sequence[Document]) -> str:
    """The documents of one file. ASCII only, so that nothing in it can steer a terminal."""
    import yaml

    out = []
    for one in documents:
        # Not safe_dump: its quotes are those of YAML 1.1. The dumper knows plain values only, too.
        body = yaml.dump(
            one.content, Dumper=_dumper(), sort_keys=False, default_flow_style=False, width=1 << 20, allow_unicode=False
        )
        out.append("".join(f"# {plain(line)}".rstrip() + "\n" for line in one.comments) + body)
    return "---\n".join(out)


def plain(line: str) -> str:
    """A comment's line, whatever it was made of."""
    return line.encode("ascii", "backslashreplace").decode().translate({c: " " for c in [*range(32), 127]})


@cache
def _dumper() -> type[yaml.SafeDumper]:
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

    def words(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else '"' if GUESSED.fullmatch(value) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, words)
    return Dumper
