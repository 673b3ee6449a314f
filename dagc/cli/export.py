"""`dagc export`: launch commands and configs for serving engines, and of training steps for Megatron-LM."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path

from ..base.diagnostics import Diagnostic, SpecError
from ..base.frozen import replace
from ..base.harmless import harmless
from ..export.deploy.launchers import LAUNCHERS, bench_files, launcher
from ..export.deploy.launchers import names as launchers
from ..export.engines import ENGINES, TRAINERS
from .arguments import any_of, spec_arguments
from .common import compiled, stem, tell
from .manner import say
from .writing import refuse_existing, write_all

IMAGE = r"[A-Za-z0-9][\w.:/@-]{0,500}"


def add_arguments(parser: ArgumentParser) -> None:
    spec_arguments(parser)
    parser.add_argument(
        "--to",
        required=True,
        choices=ENGINES,
        metavar="ENGINE",
        help=any_of(ENGINES),
    )
    parser.add_argument(
        "--engine-version",
        metavar="V",
        help="write for this version of the engine (default: the newest that was checked; with Dynamo, its own)",
    )
    parser.add_argument(
        "--launcher",
        choices=launchers(),
        metavar="LAUNCHER",
        help="write what starts the whole deployment: " + "; ".join(f"{one.name} ({one.about})" for one in LAUNCHERS),
    )
    parser.add_argument(
        "--image", metavar="I", help="image of the engine's containers (default: the project's own, of that version)"
    )
    parser.add_argument("--model", metavar="M", help="checkpoint to serve (default: the plan's name of the model)")
    parser.add_argument("-o", "--output", metavar="DIR", help="where files go (default: standard output)")
    parser.add_argument("--force", action="store_true", help="write into a directory that is not empty")


def run(args: Namespace) -> int:
    try:
        check_version(args.to, args.engine_version)  # before a plan is compiled for nothing
        image = _image(args)
        from ..export.engines.launch import check_checkpoint, exported
        from ..spec.inference_alone import inference_phases

        if args.model is not None:
            check_checkpoint(args.model)
        plan = compiled(args.spec, args)
        if plan is None:
            return 2
        trains = args.to in TRAINERS and plan.trainings and not args.launcher
        if not trains:
            inference_phases(plan.spec, args.phase, f"what is written for {args.to} is")
        tell(plan.diagnostics, requirements=False)
        refused: tuple[Diagnostic, ...] = ()
        if args.launcher:
            from ..export.deploy.made import deployment

            chosen = launcher(args.launcher)
            version = args.engine_version or chosen.engine_version(args.to)
            one = deployment(plan, args.to, args.model, stem(args.spec), version)
            files: Mapping[str, bytes] = chosen.files(replace(one, image=image))
            if args.output:  # what is piped on is the launcher's alone
                files = {**files, **bench_files(one)}
        else:
            files = {}
            if plan.phases:
                found = exported(plan, args.to, args.model, stem(args.spec), args.engine_version)
                files, refused = found.files, found.refused
            for phase in plan.trainings if trains else ():
                from ..export.engines.megatron_training import training_files

                try:
                    files = {**files, **training_files(plan, phase, stem(args.spec), args.engine_version)}
                except SpecError as error:
                    refused = (*refused, *error.diagnostics)
            tell(refused)
            if not files:
                return 2
        if args.output:
            directory = Path(args.output)
            refuse_existing(directory, args.force)
            write_all({directory / name: data for name, data in files.items()})
            for name in files:
                say(f"wrote {directory / name}")
        else:
            for name, data in files.items():
                sys.stdout.write(f"# ---- {name}\n{data.decode()}")
        if refused:
            return 2
        return 0 if plan.fits else 1
    except SpecError as error:
        tell(error.diagnostics)
        return 2


def check_version(engine: str, version: str | None) -> None:
    """Raises SpecError where no file is written for this version of an engine."""
    from ..engines.facts import facts

    try:
        facts(engine, version)
    except SpecError:
        if engine not in TRAINERS:
            raise
        facts(TRAINERS[engine], version)


def _image(args: Namespace) -> str | None:
    """Raises SpecError where no container would run it, or where it is none."""
    if args.image is None:
        return None
    if args.launcher is None or not launcher(args.launcher).in_containers:
        kinds = ", ".join(one.name for one in LAUNCHERS if one.in_containers)
        raise SpecError([Diagnostic("E05", "--image: nothing here runs in containers", help=(f"--launcher {kinds}",))])
    if not re.fullmatch(IMAGE, args.image):
        said = harmless(args.image[:80])
        raise SpecError([Diagnostic("E05", f"--image: `{said}` is not the name of an image")])
    image: str = args.image
    return image
