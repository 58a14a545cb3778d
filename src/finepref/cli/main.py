"""`finepref`: collect the commands, turn a `FineprefError` into one sentence and its exit code."""

from __future__ import annotations

import atexit
import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import typer

from finepref.cli.elsewhere import refuse_addresses
from finepref.cli.typed import as_typed, refuse_repeats
from finepref.core.device import launched_as
from finepref.core.errors import FineprefError, InputError
from finepref.core.interrupt import Interrupted
from finepref.core.progress import is_stage, say
from finepref.core.rereading import one_command
from finepref.core.rows import ENVIRONMENT, load_plugin, named_plugins, row_fault, table

# In the order of the journey. Every name is a module of this package (`-` is `_` there) that exposes `command`:
# a function (one command) or a `typer.Typer` (a group of commands).
COMMANDS: tuple[str, ...] = (
    *("align", "data", "collect", "arena", "next", "signals", "cache", "train", "generate", "score", "compare"),
    *("report", "export", "publish", "rounds"),
    *("control-maps", "scorers", "methods", "config", "plan", "lab", "demo", "doctor"),
)
SHARED = ("train", "cache", "generate", "score", "data", "doctor")
"""What several processes of a launcher may be; each of the others would do all the work."""

PLUGIN = "--plugin FILE.py|module, on every command: rows of your own, such as an objective (docs/own_rows.md)."


def build(names: Sequence[str] = COMMANDS, *, declare: bool = True) -> typer.Typer:
    """The command line, or these of its commands, as one typer application.

    Args:
        declare: let commands declare the options that rows of the axes have; their tables are imported.
    """
    app = typer.Typer(
        name="finepref",
        help="Fine-grained preference optimisation of text-to-image diffusion models.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback(epilog=PLUGIN)
    def root() -> None:
        pass

    for name in names:
        module = importlib.import_module(f"finepref.cli.{name.replace('-', '_')}")
        if name == "signals" and declare:
            module.declare(table("signal").values())
        if isinstance(module.command, typer.Typer):
            app.add_typer(module.command, name=name, epilog=PLUGIN)
        else:
            app.command(name, epilog=PLUGIN)(module.command)
    return app


def load_plugins(words: list[str]) -> list[str]:
    """Load what --plugin names and take it out of the command line; what the command starts loads it too.

    Raises:
        InputError: a plugin that cannot be used, or --plugin without a name.
    """
    named, rest = [], []
    left = iter(words)
    for word in left:
        option, equals, value = word.partition("=")
        if option == "--plugin":
            named.append(value if equals else next(left, ""))
            continue
        rest.append(word)
        if word == "--":
            break
    if "" in named:
        raise InputError("no name", where="--plugin", remedy="name a file.py or a module")
    for name in named:
        if os.pathsep in name:
            raise InputError(f"its path holds {os.pathsep!r}", where=f"--plugin {name}", remedy="move or rename it")
    paths = [str(Path(name).expanduser().absolute()) if name.endswith(".py") else name for name in named]
    given = [*named_plugins(), *paths]
    if given:
        os.environ[ENVIRONMENT] = os.pathsep.join(dict.fromkeys(given))
        for name in given:
            load_plugin(name)
    return [*rest, *left]


def prepare() -> None:
    """Quiet libraries, streams that can write every text, and an end on SIGTERM that puts away what is half-written."""
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):  # read when they are imported
        os.environ.setdefault(name, "error")
    for name in ("torchao", "torch.utils._pytree"):  # say at import what they cannot do on this machine
        logging.getLogger(name).setLevel(logging.ERROR)
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows fewer letters shows the others as escapes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with suppress(ValueError):  # of another thread than the main one
        signal.signal(signal.SIGTERM, _end)
    atexit.register(_too_late)


def main() -> None:
    """Entry point: exit 0 done, 1 ran and failed a check, 2 bad input, 130 and 143 interrupted."""
    prepare()
    app, words = None, sys.argv[1:]
    try:
        words = load_plugins(words)
        one = words[:1] if words[:1] and words[0] in COMMANDS else []
        _refuse_several(one)
        app = build(one or COMMANDS, declare=bool(one))
        refuse_repeats(app, words)
        refuse_addresses(app, words)
        with one_command():
            app(words)
    except FineprefError as error:
        _stop(str(error) if app is None else as_typed(error, app, words), error.exit_code)
    except KeyboardInterrupt:
        _stop(STOPPED, 130, stopped=True)
    except SystemExit as error:
        if (ended := _interrupted(error)) is not None:  # which the command line library made an exit
            _stop(str(ended), ended.exit_code, stopped=True) if str(ended) else sys.exit(ended.exit_code)
        if error.code in (130, 143):
            _stop(STOPPED, error.code, stopped=True)
        raise
    except BrokenPipeError:
        sys.exit(141)
    except Exception as error:
        sentence = _exhausted(error)
        if sentence is not None:
            _stop(sentence, 1)
        if (fault := row_fault(error)) is not None:
            _stop(str(fault), fault.exit_code)
        if not isinstance(error, OSError) or error.filename is None:
            raise
        _stop(f"{error.filename2 or error.filename}: {error.strerror}; name another file or folder", 2)


def _refuse_several(command: list[str]) -> None:
    """Refuse to do the same work in every process that torchrun or srun started.

    Raises:
        InputError: several were started for a command that is one process.
    """
    size = launched_as()[0]
    if size > 1 and command and command[0] not in SHARED:
        what = f"it is the work of one process, and a launcher started {size}"
        raise InputError(what, where=command[0], remedy="call it without torchrun, or as srun --ntasks=1")


STOPPED = (
    "stopped before the end; whole results and checkpoints are kept, and nothing half-written stands in their place: "
    "run the same command again to go on"
)


def _interrupted(error: BaseException | None) -> Interrupted | None:
    """What ended a command at a safe place, where that is why it ends."""
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return error


def _end(number: int, frame: object) -> None:
    """SIGTERM ends like Ctrl-C: what is being written is put away."""
    sys.exit(128 + number)


def _too_late() -> None:
    """While Python ends there is nothing left to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _stop(sentence: str, code: int | str | None, *, stopped: bool = False) -> NoReturn:
    """End with a sentence. stopped: by a signal, of which the command that runs this one as a stage tells itself."""
    if not (stopped and is_stage()):
        say(f"finepref: {sentence}")
    sys.exit(code)


def _exhausted(error: Exception) -> str | None:
    """The sentence for a full disk or a full GPU; None for anything else, which keeps its traceback."""
    full = ("No space left on device", "File too large", "Disk quota exceeded")
    if any(words in str(error) for words in full):
        return f"nothing more can be written ({error}); free some space and start again (a run goes on with --resume)"
    if type(error).__name__ == "OutOfMemoryError":
        less = "lower train.micro_batch or set train.gradient_checkpointing, which change no result"
        return f"the GPU's memory is too small; {less}, and go on with --resume, or see what fits with `finepref plan`"
    return None


if __name__ == "__main__":
    main()
