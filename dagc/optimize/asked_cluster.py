"""The cluster that `--on` names."""

from __future__ import annotations

from importlib.util import find_spec

from ..base.diagnostics import Diagnostic, SpecError


def check_cluster(url: str) -> None:
    """Raises SpecError where no cluster can be meant, or its client is not installed."""
    if not url:
        return
    from .clusters import ADDRESS, PACKAGES

    scheme, sign, address = url.partition("://")
    if not sign or scheme not in PACKAGES or not ADDRESS.fullmatch(address):
        help_ = (f"write {' or '.join(f'{name}://HOST:PORT' for name in PACKAGES)}",)
        raise SpecError([Diagnostic("E14", f"`--on {url}` is no address of a cluster", help=help_)])
    package = PACKAGES[scheme]
    if find_spec(package) is None:
        from ..base.distribution import how_to_install

        raise SpecError([Diagnostic("E16", f"`--on {scheme}://` needs `{package}`", help=(how_to_install(scheme),))])
