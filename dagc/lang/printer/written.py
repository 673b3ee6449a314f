"""Numbers, quantities, names and sections as text."""

from __future__ import annotations

from collections.abc import Iterator

from ...base.units import BASE, SCALAR, UNITS, Quantity, dim_name


def number(value: float, unit: str = "") -> str:
    """Shortest text that reads back as the same float."""
    text = str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
    return f"{text} {unit}" if unit else text


def billions_text(value: float) -> str:
    text = f"{value / 1e9:.12g}e9"
    return text if float(text) == value else number(value)


def value_text(value: object) -> str:
    if isinstance(value, Quantity):
        return quantity_text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and (not is_plain(value) or value in ("true", "false")):
        return f'"{value}"'
    return str(value)


def quantity_text(value: Quantity) -> str:
    """What no unit is of, as a product of units."""
    unit = dim_name(value.dim)
    if value.dim == SCALAR or unit in UNITS:
        return number(value.value, "" if value.dim == SCALAR else unit)
    signs = [("*" if e > 0 else "/", base) for base, e in zip(BASE, value.dim, strict=True) for _ in range(abs(e))]
    return f"({number(value.value)}{''.join(f' {sign} 1 {base}' for sign, base in signs)})"


def section_text(head: str, lines: Iterator[str] | list[str]) -> str:
    return "\n".join([f"{head} {{", *(f"  {line}" for line in lines), "}"])


def word_or_path_text(text: str) -> str:
    return f'"{text}"' if text.endswith(".json") else text


def is_plain(name: str) -> bool:
    """Whether it is read as a word without quotes."""
    return name.isascii() and name.replace("_", "a").isalnum() and not name[0].isdigit()


def shares_text(shares: tuple[float, ...]) -> str:
    return f"[{', '.join(map(number, shares))}]"


def op_name_text(name: str) -> str:
    """A single op's has a dot."""
    return f'"{name}"' if "." in name else name
