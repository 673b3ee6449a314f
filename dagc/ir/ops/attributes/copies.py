"""Attributes of copies between a GPU's memory and its host's."""

from __future__ import annotations

from .attrs import Attrs, count_field, flag_field, number_field


class CopyAttrs(Attrs):
    """Of copies between a GPU's memory and its host's, which have a stream of their own. One that is prefetched begins with its layer,
    for the layer behind: what reads it waits for the copies of the layer before."""

    prefetch: bool = flag_field("it is done for the layer behind", made=True, default=True)


class ExpertCopyAttrs(CopyAttrs):
    resident: int = count_field(
        "experts of the layer that its GPUs hold, all together", high=65_536, made=True, default=1
    )
    share: float = number_field("of what they lack", open_low=False, high=1.0, made=True, default=1.0)


class HostCacheAttrs(CopyAttrs):
    share: float = number_field("share of the tokens that host memory keeps", high=1.0, made=True, default=1.0)
