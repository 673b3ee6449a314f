"""Plan in, launch files out: one server for each set of GPUs, by the rules of one engine."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.diagnostics import Diagnostic, SpecError
from ...base.frozen import record
from ...engines.facts import facts
from ...plan.plan import CompiledPlan
from .degrees import layout
from .draft import ServerDraft
from .exportable import nearest
from .notes import left_open, own_dtypes
from .router import router
from .servers import has_others, merged, writer

ONE_STRATEGY = "one_strategy"
"""The rule of phases that share GPUs, which every engine has."""


@record
class Exported:
    """File name -> content of every server that the engine runs, and why it does not run the others."""

    files: Mapping[str, bytes]
    refused: tuple[Diagnostic, ...]


@record
class Drafted:
    """Servers that the engine runs, each with its files by suffix, and why it does not run the others. `rules`: of each refusal the names
    of the rules that are broken."""

    servers: tuple[tuple[ServerDraft, Mapping[str, str]], ...]
    refused: tuple[Diagnostic, ...]
    rules: tuple[tuple[str, ...], ...] = ()


def export(
    plan: CompiledPlan, engine: str, model: str | None, stem: str, version: str | None = None
) -> dict[str, bytes]:
    """File name -> content for every server of the plan. Raises SpecError with E05 and every rule that any of them breaks."""
    found = exported(plan, engine, model, stem, version)
    if found.refused:
        raise SpecError(list(found.refused))
    return dict(found.files)


def exported(plan: CompiledPlan, engine: str, model: str | None, stem: str, version: str | None = None) -> Exported:
    """What can be exported of a plan. `version`: of the engine; None: the newest one that was checked. Raises SpecError with E05 where the
    checkpoint or the version is none."""
    made = drafted(plan, engine, model, version)
    out: dict[str, bytes] = {}
    for draft, files in made.servers:
        for suffix, text in files.items():
            name = draft.layout.name
            out[f"{stem.removesuffix(f'.{name}')}.{name}.{engine}.{suffix}"] = text.encode()
    drafts = [draft for draft, _ in made.servers]
    for suffix, text in router(drafts, plan.spec).items() if not made.refused else ():
        out[f"{stem}.router.{engine}.{suffix}"] = text.encode()
    return Exported(out, made.refused)


def check_checkpoint(name: str) -> None:
    """Raises SpecError where an engine could not be told to serve it."""
    if not name.strip() or name.startswith("-") or not name.isprintable():
        help = ("--model gives its name or path",)
        raise SpecError([Diagnostic("E05", f"`{name}` is not a name or path of a checkpoint", help=help)])


def drafted(plan: CompiledPlan, engine: str, model: str | None, version: str | None = None) -> Drafted:
    """The servers of a plan. Raises SpecError with E05 where the checkpoint or the version is none."""
    known = facts(engine, version)
    write = writer(engine)
    checkpoint = model if model is not None else next(iter(plan.units.values())).spec.model.name
    check_checkpoint(checkpoint)
    layouts = [layout(result.graph, result.gpus, plan.units[name]) for name, result in plan.phases.items()]
    servers, errors = merged(layouts)
    rules: list[tuple[str, ...]] = [(ONE_STRATEGY,) for _ in errors]
    out = []
    for server in servers:
        memory = {p.name: plan.phases[p.name].memory for p in server.phases}
        draft = ServerDraft(known, server, checkpoint, has_others(server), memory, plan.overflow)
        left_open(draft)
        own_dtypes(draft, plan.spec)
        if model is None:
            draft.note(f"`{draft.model}` is the model's name in the plan; --model gives the checkpoint's")
        files = write(draft)
        if draft.refused:
            errors.append(_refusal(draft, nearest(draft, known)))
            rules.append(tuple(dict.fromkeys(one.rule.name for one in draft.refused)))
        else:
            out.append((draft, files))
    return Drafted(tuple(out), tuple(errors), tuple(rules))


def _refusal(draft: ServerDraft, near: str) -> Diagnostic:
    known, name = draft.facts, draft.layout.name
    lacks = len(draft.lacking) == len(draft.refused)
    message = f"`{name}` is not written for {known.label} yet" if lacks else f"{known.label} cannot express `{name}`"
    helps = [one.rule.help for one in draft.refused if one.rule.help]
    if near:
        helps.append(f"the nearest plan that exports: {near}")
    because = tuple(one.text for one in draft.refused)
    return Diagnostic("E05", message, draft.layout.phases[0].span, because=because, help=tuple(dict.fromkeys(helps)))
