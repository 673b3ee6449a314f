"""YAML from elsewhere, within bounds: values, each with its place in the text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from .diagnostics import Diagnostic, SpecError
from .frozen import field, mutable, record
from .harmless import harmless
from .source import Source, Span

MAX_DEPTH = 100
"""Of values in values: a manifest has a dozen."""
MAX_VALUES = 200_000
"""Of a text, each as often as anchors repeat it: a kilobyte can repeat billions."""
MAX_DOCUMENTS = 1_000
MERGE = "<<"
"""The key under which a mapping takes over the entries of others."""


@record
class Scalar:
    """`text` is as written, so that `08` and `yes` are what a command line would get; `value` what YAML 1.1 makes of it: a number, a
    truth value, None or the text. Dates are text."""

    text: str
    value: Any
    span: Span


@record
class Items:
    """A sequence."""

    items: tuple[Node, ...]
    span: Span


@record
class Entries:
    """A mapping. `keys`: the place of each key."""

    entries: Mapping[str, Node]
    keys: Mapping[str, Span]
    span: Span


Node: TypeAlias = Scalar | Items | Entries


def plain(node: Node) -> Any:
    """What `yaml.safe_load` would give, but for dates, which are text, and keys, which all are."""
    if isinstance(node, Entries):
        return {key: plain(value) for key, value in node.entries.items()}
    if isinstance(node, Items):
        return [plain(one) for one in node.items]
    return node.value


def at(node: Node | None, *path: str | int) -> Node | None:
    """The value at a path of keys and numbers; None where there is none."""
    for step in path:
        if isinstance(node, Entries) and isinstance(step, str):
            node = node.entries.get(step)
        elif isinstance(node, Items) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
        else:
            return None
    return node


def text_at(node: Node | None, *path: str | int) -> str | None:
    """The scalar at a path, as written; None where there is none, or null."""
    found = at(node, *path)
    return found.text if isinstance(found, Scalar) and found.value is not None else None


def items_at(node: Node | None, *path: str | int) -> tuple[Node, ...]:
    """Of the sequence at a path; none where there is none."""
    found = at(node, *path)
    return found.items if isinstance(found, Items) else ()


def entries_at(node: Node | None, *path: str | int) -> Mapping[str, Node]:
    """Of the mapping at a path; none where there is none."""
    found = at(node, *path)
    return found.entries if isinstance(found, Entries) else {}


def read_yaml(source: Source) -> tuple[Node, ...]:
    """Every document that is not empty. Raises SpecError with E05 where the text is no YAML or is beyond the bounds, and E11 where a
    key is given twice."""
    import yaml

    fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        loader = fast(source.text)
    except (yaml.reader.ReaderError, UnicodeEncodeError):
        raise _fault("this is no YAML: it has a character that YAML does not allow", source, 0) from None
    try:
        return tuple(_Reader(source, loader, yaml.SafeLoader(""), yaml).documents())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(harmless(str(part)) for part in (error.context, error.problem) if part)
        raise _fault(f"this is no YAML: {said}", source, mark.index if mark else 0) from None
    except yaml.reader.ReaderError as error:
        where = error.position if isinstance(error.position, int) else 0
        raise _fault("this is no YAML: it has a character that YAML does not allow", source, where) from None
    finally:
        loader.dispose()


def _fault(message: str, source: Source, start: int, end: int | None = None, code: str = "E05") -> SpecError:
    start = min(start, max(0, len(source.text) - 1))
    span = Span(source, start, max(start + 1, end or 0)) if source.text else None
    return SpecError([Diagnostic(code, message, span)])


@mutable
class _Open:
    """A sequence or mapping whose end was not met yet. `values`: read so far, of a mapping keys and values in turn."""

    event: Any
    values: list[Node] = field(default_factory=list)


@mutable
class _Reader:
    """`size`: values so far, with those that aliases repeat."""

    source: Source
    loader: Any
    resolver: Any
    yaml: Any
    size: int = 0
    anchors: dict[str, tuple[Node, int]] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)

    def documents(self) -> Iterator[Node]:
        yaml, found = self.yaml, 0
        open_: list[_Open] = []
        root: Node | None = None
        while self.loader.check_event():
            event = self.loader.get_event()
            if isinstance(event, yaml.DocumentStartEvent):
                found, root = found + 1, None
                self.anchors.clear()
                if found > MAX_DOCUMENTS:
                    raise self.fault(f"this has more than {MAX_DOCUMENTS:,} documents", event)
            elif isinstance(event, yaml.DocumentEndEvent):
                if root is not None and not (isinstance(root, Scalar) and root.value is None):
                    yield root
            elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
                if len(open_) == MAX_DEPTH:
                    raise self.fault(f"values are nested more than {MAX_DEPTH} deep", event)
                self.plain_tag(event)
                self.count(1, event)
                open_.append(_Open(event))
                self.sizes.append(self.size)
            elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
                node = self.closed(open_.pop(), event)
                root = self.take(node, open_) or root
            elif isinstance(event, yaml.ScalarEvent):
                self.count(1, event)
                node = self.scalar(event)
                if event.anchor:
                    self.anchors[event.anchor] = (node, 1)
                root = self.take(node, open_) or root
            elif isinstance(event, yaml.AliasEvent):
                known = self.anchors.get(event.anchor)
                if known is None:
                    raise self.fault(f"`*{harmless(event.anchor)[:80]}` names no value above it", event)
                self.count(known[1], event)
                root = self.take(known[0], open_) or root

    def take(self, node: Node, open_: list[_Open]) -> Node | None:
        """Into what is open; what no other value has is the document."""
        if not open_:
            return node
        open_[-1].values.append(node)
        return None

    def closed(self, opened: _Open, end: Any) -> Node:
        start, size = opened.event, self.size - self.sizes.pop() + 1
        # The end of a block is where the next one begins: its last value ends it.
        stop = max([start.start_mark.index + 1, *(v.span.end for v in opened.values)], default=0)
        if getattr(start, "flow_style", False):
            stop = end.end_mark.index
        span = Span(self.source, start.start_mark.index, stop)
        if isinstance(start, self.yaml.SequenceStartEvent):
            node: Node = Items(tuple(opened.values), span)
        else:
            node = self.mapping(opened.values, span)
        if start.anchor:
            self.anchors[start.anchor] = (node, size)
        return node

    def mapping(self, values: list[Node], span: Span) -> Entries:
        entries: dict[str, Node] = {}
        keys: dict[str, Span] = {}
        merged: list[Node] = []
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, Scalar):
                raise _fault("a key of a mapping is no text", self.source, key.span.start, key.span.end)
            if key.text == MERGE:
                merged += value.items if isinstance(value, Items) else [value]
                continue
            if key.text in entries:
                named = harmless(key.text)[:80]
                raise _fault(f"`{named}` is given twice", self.source, key.span.start, key.span.end, "E11")
            entries[key.text], keys[key.text] = value, key.span
        for other in merged:
            if not isinstance(other, Entries):
                raise _fault(f"`{MERGE}` takes mappings", self.source, other.span.start, other.span.end)
            self.count(len(other.entries), None)
            for name, value in other.entries.items():
                if name not in entries:
                    entries[name], keys[name] = value, other.keys[name]
        return Entries(entries, keys, span)

    def scalar(self, event: Any) -> Scalar:
        yaml = self.yaml
        span = Span(self.source, event.start_mark.index, max(event.end_mark.index, event.start_mark.index + 1))
        if event.tag in (None, "!"):
            tag = self.resolver.resolve(yaml.ScalarNode, event.value, event.implicit)
        else:
            tag = event.tag
        short = tag.removeprefix("tag:yaml.org,2002:")
        if short in ("str", "timestamp", "value", "merge") and tag != short:
            return Scalar(event.value, event.value, span)
        if short not in ("null", "bool", "int", "float") or tag == short:
            raise self.foreign(tag, event)
        try:
            value = self.resolver.construct_object(yaml.ScalarNode(tag, event.value))
        except (ValueError, KeyError, IndexError, yaml.YAMLError):
            value = event.value  # as `0x` or a number of thousands of digits
        finally:
            self.resolver.constructed_objects.clear()
        return Scalar(event.value, value, span)

    def plain_tag(self, event: Any) -> None:
        if event.tag not in (None, "!", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"):
            raise self.foreign(event.tag, event)

    def foreign(self, tag: str, event: Any) -> SpecError:
        named = harmless(tag).replace("tag:yaml.org,2002:", "!!")[:80]
        return self.fault(f"values of `{named}` are not read: they are no plain data", event)

    def count(self, more: int, event: Any) -> None:
        self.size += more
        if self.size > MAX_VALUES:
            raise self.fault(
                f"this has more than {MAX_VALUES:,} values, counted as often as anchors repeat them", event
            )

    def fault(self, message: str, event: Any) -> SpecError:
        start, end = (event.start_mark.index, event.end_mark.index) if event is not None else (0, None)
        return _fault(message, self.source, start, end)
