"""Mutations: of bytes, of the tokens of a spec, of the values of a JSON file, of the members of an archive."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from copy import deepcopy
from random import Random
from typing import Any

from .seeds import as_json, json_values, words

TOKEN = re.compile(r'"[^"\n]*"|#[^\n]*|[0-9][0-9_.]*(?:[eE][+-]?[0-9]+)?|[A-Za-z_]\w*|\.\.|<=|>=|==|\+-|\s+|.')
NUMBERS = (
    "0", "1", "2", "3", "5", "7", "8", "16", "64", "100", "127", "1000", "4096", "65_536", "999_999", "1e6", "1000001", "1e9", "2147483648",
    "1e12", "1e18", "1e19", "1e100", "1e308", "1e-320", "1e-9", "0.5", "1.5", "0.1", "33.3",
)  # fmt: skip
STRINGS = ('""', '"x"', '"/etc/passwd"', '"../x.moe"', '"config.json"', '"c.json"', '"h.txt"', '"a b"', '"::error::x"', '"{x}"', '"%s"', '"-o"',
           '"' + "a" * 300 + '"', '"\x1b[31m"', '"\u202e"', '"W.{layer:9}.x hidden"', '"W[0:2] hidden"')  # fmt: skip
PIECES = (
    " + ", " - ", " * ", " / ", "..", "(", ")", "[", "]", "{", "}", "=", ",", "\n", " ", "-", "~", "<=", "<", "==", "+- 5%", "%", ".", "in", "#",
    "[0..999_999]", "each(10_000, index)", "each(100, [0..9_999])", "1/0", "-1", "max(1, 2)", "at([1], 0)", "length([])", "if(true, 1, 2)",
    "\nlet z = z\n", "\nlet a = b\nlet b = a\n", '\nimport "spec.moe"\n', '\nimport "fifo"\n', "\nmoe 2\n", "\nphase x { }\n", "\x00", "\xff",
    " tok", " GB", " ms", " TFLOP/s", " Gbit/s", "microbatches = 1000000", "pp = 64", "gpus = 0..999_999", "layers = 100_000", "sequences = 1e9",
)  # fmt: skip


def bytewise(data: bytes, random: Random) -> bytes:
    """A few flips, cuts, repeats and moves."""
    out = bytearray(data)
    for _ in range(1 << random.randrange(4)):
        if not out:
            break
        at = random.randrange(len(out))
        length = min(len(out) - at, 1 << random.randrange(8))
        how = random.randrange(6)
        if how == 0:
            out[at] ^= 1 << random.randrange(8)
        elif how == 1:
            out[at] = random.choice(b'\x00\xff\n\r"{}[]()=,.%~-+*/#0 9aZ\x1b')
        elif how == 2:
            del out[at : at + length]
        elif how == 3:
            out[at:at] = out[at : at + length]
        elif how == 4:
            piece = out[at : at + length]
            to = random.randrange(len(out))
            out[to:to] = piece
        else:
            out[at:at] = random.randbytes(random.randrange(1, 5))
    return bytes(out[:200_000])


def spec(text: str, other: str, random: Random) -> str:
    """Tokens of a spec deleted, doubled, swapped or replaced by others of their kind; lines of another spec among its own."""
    for _ in range(random.choice((1, 1, 1, 1, 2, 2, 3, 6))):
        if random.random() < 0.25:
            text = lines(text, other, random)
            continue
        tokens = TOKEN.findall(text)
        seen = [k for k, t in enumerate(tokens) if not t.isspace() and not t.startswith("#")]
        if not seen:
            return text
        at = random.choice(seen)
        token = tokens[at]
        how = random.random()
        if how < 0.75:
            tokens[at] = like(token, random)
        elif how < 0.8:
            del tokens[at]
        elif how < 0.87:
            tokens.insert(at, random.choice(PIECES))
        elif how < 0.9:
            tokens.insert(at, token)
        elif how < 0.94:
            to = random.choice(seen)
            tokens[at], tokens[to] = tokens[to], tokens[at]
        else:
            tokens[at] = token * random.choice((2, 50, 300)) if random.random() < 0.3 else f"({token} + {token})"
        text = "".join(tokens)
    return text[:200_000]


def like(token: str, random: Random) -> str:
    if token[0].isdigit():
        if random.random() < 0.5 and token.isdigit():
            return str(
                max(
                    0,
                    random.choice((int(token) * 2, int(token) // 2, int(token) + 1, int(token) - 1, int(token) * 1000)),
                )
            )
        return random.choice(NUMBERS)
    if token[0] == '"':
        return random.choice(STRINGS)
    if token[0].isalpha() or token[0] == "_":
        return random.choice(words())
    return random.choice(PIECES)


def lines(text: str, other: str, random: Random) -> str:
    rows, more = text.split("\n"), other.split("\n")
    at = random.randrange(len(rows))
    how = random.randrange(4)
    if how == 0:
        del rows[at]
    elif how == 1:
        rows.insert(at, random.choice(more))
    elif how == 2:
        rows[at:at] = rows[random.randrange(len(rows)) :][: random.randrange(1, 8)] * random.choice((1, 1, 1, 2, 40))
    else:
        rows[at] = random.choice(rows)
    return "\n".join(rows)


def jsonwise(data: bytes, random: Random) -> bytes:
    """Values of a JSON file removed, replaced, doubled or moved."""
    try:
        root = json.loads(data)
    except ValueError:
        return bytewise(data, random)
    for _ in range(1 + min(random.randrange(4), random.randrange(4))):
        places = list(_places(root))
        if not places:
            break
        # Few places near the top, thousands far below: the depth is chosen first.
        depth = random.choice(sorted({d for _, _, d in places}))
        holder, key, _ = random.choice([p for p in places if p[2] == depth])
        value = holder[key]
        how = random.random()
        if how < 0.2:
            del holder[key]
        elif how < 0.6:
            holder[key] = random.choice(json_values())
        elif how < 0.75 and isinstance(value, (int, float)) and not isinstance(value, bool):
            holder[key] = random.choice(
                (
                    value + 1,
                    -value,
                    value * 2,
                    value * 10**9,
                    0.5 if abs(value) > 1e300 else value / 3,
                    str(value),
                    int(value),
                )
            )
        elif how < 0.85:
            _, other, _ = picked = random.choice(places)
            # A copy: a value put below itself would have no end.
            holder[key] = deepcopy(picked[0].get(other)) if isinstance(picked[0], dict) else None
        elif isinstance(holder, list):
            holder.insert(key, deepcopy(value))
        else:
            holder[str(key) + random.choice(("x", "_", ""))] = deepcopy(value)
    try:
        return as_json(root)
    except (ValueError, RecursionError):
        return data


def _places(root: Any) -> Any:
    stack = [(root, 0)]
    while stack:
        node, depth = stack.pop()
        keys = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            yield node, key, depth
            if isinstance(node[key], (dict, list)):
                stack.append((node[key], depth + 1))


def archive(data: bytes, random: Random) -> bytes:
    """Members of a .npz with other headers, shapes, sizes and compressions; or its bytes."""
    if random.random() < 0.3:
        return bytewise(data, random)
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for info in old.infolist():
            member = old.read(info)
            how = random.randrange(8)
            if how == 0:
                member = bytewise(member, random)
            elif how == 1:
                member = _header(
                    member,
                    random.choice(
                        ("(1000000000000,)", "(2, -1)", "()", "(0,)", "(99999999999999999999,)", "'x'", "(1e9,)")
                    ),
                )
            elif how == 2:
                member = member.replace(b"<f8", random.choice((b"|O8", b"<c8", b"|S9", b"<U9", b"<f2", b"|V8", b"<i8")))
            elif how == 3:
                member = member[: random.randrange(len(member))]
            elif how == 4:
                member += bytes(random.choice((1, 1000, 50_000_000)))
            name = random.choice((info.filename, info.filename, "input_ids.npy", "../x.npy", "\x1b[31m.npy", "a" * 300))
            if name in new.namelist():
                name = info.filename
            how_packed = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
            new.writestr(zipfile.ZipInfo(name), member, how_packed)  # of no date: the same at any time
    return bytewise(file.getvalue(), random) if random.random() < 0.1 else file.getvalue()


def _header(member: bytes, shape: str) -> bytes:
    """A .npy file whose header says another shape."""
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
    padded = text.ljust(117) + "\n"
    return member[:8] + struct.pack("<H", len(padded)) + padded.encode() + member[128:]
