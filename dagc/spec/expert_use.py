"""Which of a model's experts a phase uses, and where it has them."""

from __future__ import annotations

from ..base.frozen import record


@record
class ExpertUse:
    """`skip`: share of the choices of experts that are left out; those whose weight is less than `skip_below` of the token's largest."""

    skip: float = 0.0
    skip_below: float = 0.5


ALL = ExpertUse()
"""Every choice counts."""
