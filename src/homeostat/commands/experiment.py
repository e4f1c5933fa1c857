"""Commands that try variants: experiments, and tokens for those who choose one."""

from __future__ import annotations

from typing import Annotated

import typer

from homeostat.commands.options import HERE, Folder, Json, Reason, opened, show
from homeostat.domain.units import fraction

experiment = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Versions side by side, on metrics of callers."
)
token = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Who may choose the variant that answers.")


def _share(text: str) -> float:
    try:
        return float(str(fraction(text)))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Described = Annotated[str, typer.Argument(help="A name under `experiments` in homeostat.yaml.")]


@experiment.command("plan")
def experiment_plan(
    name: Described,
    lift: Annotated[float, typer.Option(parser=_share, metavar="SHARE", help="The change of the mean to be found.")],
    variants: Annotated[int, typer.Option(min=1, max=9, help="Versions beside the champion.")] = 1,
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """How many entities, and how many days, an experiment would take.

    Example: homeostat experiment plan checkout --lift 5%
    """
    from homeostat.terminal import releases

    made = opened(folder).experiment.plan(name, lift, variants)
    show(made, as_json, lambda: releases.planned(made))


@experiment.command("start")
def experiment_start(
    name: Described,
    version: Annotated[list[int], typer.Option(help="A version beside the champion; may be given several times.")],
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Give each version its share of the callers. `homeostat up` carries it out.

    Example: homeostat experiment start checkout --version 4 --version 5 -p price
    """
    from homeostat import terminal

    made = opened(folder).experiment.start(name, version)
    show(made, as_json, lambda: terminal.lines(f"Experiment {made.id} began. The control loop routes it."))


@experiment.command("status")
def experiment_status(folder: Folder = HERE, as_json: Json = False) -> None:
    """What the experiment under way, or else the last, says. Example: homeostat experiment status -p price"""
    from homeostat.terminal import releases

    found = opened(folder).experiment.status()
    show(found, as_json, lambda: releases.experiment(found))


@experiment.command("stop")
def experiment_stop(reason: Reason = "", folder: Folder = HERE, as_json: Json = False) -> None:
    """End the experiment, with its conclusion; the champion answers all. Example: homeostat experiment stop -p price"""
    from homeostat.terminal import releases

    found = opened(folder).experiment.stop(reason)
    show(found, as_json, lambda: releases.experiment(found))


Tester = Annotated[str, typer.Argument(help="Whose token it is: a person, a test.")]


@token.command("add")
def token_add(name: Tester, folder: Folder = HERE, as_json: Json = False) -> None:
    """Make a token for the header x-homeostat-variant, and tell it this once; its digest is kept.

    Example: homeostat token add smoke-test -p price
    """
    from homeostat import terminal

    made = opened(folder).token.add(name)
    sent = f"x-homeostat-variant: candidate, authorization: Bearer {made}"
    show({"name": name, "token": made}, as_json, lambda: terminal.lines(made, f"Send it as {sent}"))


@token.command("list")
def token_list(folder: Folder = HERE, as_json: Json = False) -> None:
    """The names that have a token. Example: homeostat token list -p price"""
    from homeostat import terminal

    names = opened(folder).token.list()
    show(names, as_json, lambda: terminal.lines(*(names or ["Nobody has a token."])))


@token.command("remove")
def token_remove(name: Tester, folder: Folder = HERE, as_json: Json = False) -> None:
    """Every worker refuses the token within a second. Example: homeostat token remove smoke-test -p price"""
    from homeostat import terminal

    opened(folder).token.remove(name)
    show({"removed": name}, as_json, lambda: terminal.lines(f"The token of {name} is no longer taken."))
