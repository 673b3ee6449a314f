"""Help for a metric that is not known."""

from __future__ import annotations

from collections.abc import Iterable

from .known_metrics import metric
from .metric import PHASE, SERVE


def meant_metric(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """Help for an unknown metric: the one that is meant, and where all are listed."""
    names = list(known)
    several = [n for n in names if n.startswith(f"{word}.")]
    if several:
        return f"it has several figures: {', '.join(f'`{n}`' for n in several[:6])}", "`dagc list metrics` shows all"
    from ...base.suggest import did_you_mean
    from ...base.synonyms import OF_METRICS

    owner, _, rest = word.partition(".")
    meant = [f"{owner}.{name}" for name in OF_METRICS.get(rest.lower(), ())]
    called = next((n for n in meant if n in names), None)
    if called is None and any(n.startswith(f"{owner}.") for n in names):  # one that needs more of the hardware
        called = next((n for n in meant if (m := metric(n)) is not None and m.needs), None)
    if called:
        return f"did you mean `{called}`?", "`dagc list metrics` shows all"
    tails = [n for n in names if n.partition(".")[2] == word or n.endswith(f".{word}")]
    near = did_you_mean(word, names) or (tails[0] if tails else None)
    some = [n for n in names if n.startswith(f"{owner}.")] or [n for n in names if metric(n)]
    common = [n for n in some if (m := metric(n)) is not None and m.usual]
    found = metric(word)
    mine = {m.owner for n in names if n.startswith(f"{owner}.") and (m := metric(n)) is not None}
    if found is not None and found.owner == SERVE and mine == {PHASE}:
        example = next((n for n in names if n.partition(".")[2] == found.name), f"NAME.{found.name}")
        hint = f"`{found.name}` is a metric of a serving, `serve NAME {{ ... }}`: `{example}`"
        return hint, "`dagc list metrics` shows all"
    if found is not None and mine:  # or of another kind of phase
        what = "serving" if SERVE in mine else "phase"
        return f"`{found.name}` is not a metric of this {what}: {found.about}", "`dagc list metrics` shows all"
    hint = f"did you mean `{near}`?" if near else f"metrics: {', '.join((common or some)[:6])}, ..."
    return hint, "`dagc list metrics` shows all"
