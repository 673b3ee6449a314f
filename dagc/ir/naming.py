"""Names that follow from other ones: of ops that are done anew, of those of a part of a step, of what is remembered; and keys of sizes."""

from __future__ import annotations

STATE, ANEW = ".state", ".again"


def size_key(scope: str, dim: str) -> str:
    """Under which a segment has the size of a dimension as ops of one scope see it."""
    return f"{scope}:{dim}"


def scope_and_dim(key: str) -> tuple[str, str]:
    """Of the key of a size; the scope is empty where all see it so."""
    scope, _, dim = key.rpartition(":")
    return scope, dim


def of_part(name: str, scope: str) -> str:
    """An op, or a value, of a part of a mixed step."""
    return f"{name}.{scope}"


def of_all_parts(name: str, scope: str) -> str:
    """What those of a part are in all of them."""
    return name.removesuffix(f".{scope}")


def done_anew(op: str, value: str = "") -> str:
    """An op of the forward cell as it is done again for gradients, or one of its results after the first."""
    return f"{op}{ANEW}{value[len(op) :]}"


def state_name(op: str) -> str:
    """What an op remembers of the tokens that it has seen."""
    return f"{op}{STATE}"


def remembers(state: str) -> str:
    """The op whose state it is."""
    return state.removesuffix(STATE)
