"""`finepref`: collect the commands, turn a `FineprefError` into one sentence and its exit code."""

from __future__ import annotations

import importlib
import os
import sys

import typer

from finepref.core.errors import FineprefError

# In the order of the journey. Every name is a module of this package that exposes `command`:
# a function (one command) or a `typer.Typer` (a group of commands).
COMMANDS: tuple[str, ...] = (
    "data",
    "arena",
    "next",
    "signals",
    "cache",
    "train",
    "generate",
    "score",
    "compare",
    "report",
    "export",
    "scorers",
    "methods",
    "config",
    "plan",
    "lab",
    "demo",
    "doctor",
)


def build() -> typer.Typer:
    """The whole command line as one typer application."""
    app = typer.Typer(
        name="finepref",
        help="Fine-grained preference optimisation of text-to-image diffusion models.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root() -> None:
        pass

    for name in COMMANDS:
        command = importlib.import_module(f"finepref.cli.{name}").command
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def main() -> None:
    """Entry point: exit 0 done, 1 ran and failed a check, 2 bad input."""
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):  # read when they are imported
        os.environ.setdefault(name, "error")
    try:
        build()()
    except FineprefError as error:
        print(f"finepref: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(141)
    except Exception as error:
        sentence = _exhausted(error)
        if sentence is None:
            raise
        print(f"finepref: {sentence}", file=sys.stderr)
        sys.exit(1)


def _exhausted(error: Exception) -> str | None:
    """The sentence for a full disk or a full GPU; None for anything else, which keeps its traceback."""
    full = ("No space left on device", "File too large", "Disk quota exceeded")
    if any(words in str(error) for words in full):
        return f"nothing more can be written ({error}); free some space and start again (a run goes on with --resume)"
    if type(error).__name__ == "OutOfMemoryError":
        return "the GPU's memory is too small; lower train.micro_batch, or see what fits with `finepref plan`"
    return None


if __name__ == "__main__":
    main()
