"""The command line. `main` is the console script and the one place where errors become exit codes.

0 done; 2 bad input, with exactly one sentence on stderr; 130 interrupted; 1 anything else, with one sentence.
`--debug` anywhere, or KINEMA_DEBUG=1, shows the traceback as well.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from typing import NoReturn


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Runs one command and exits with its code."""
    words = list(sys.argv[1:] if args is None else args)
    ours = words[: words.index("--")] if "--" in words else words
    debug = "--debug" in ours or os.environ.get("KINEMA_DEBUG", "") not in ("", "0")
    if "--debug" in ours:
        words.remove("--debug")
    code = run(words, debug)
    try:
        sys.stdout.flush()
    except OSError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run(words: list[str], debug: bool = False) -> int:
    """Runs one command and returns its exit code; every error ends here."""
    import typer

    from kinema.cli.commands import command

    usage_error = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
    if not debug:
        _quiet_libraries()
    # Another's wish to stop (kill, a closed terminal) cleans up as Ctrl-C does.
    stops = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [signal.signal(number, signal.default_int_handler) for number in stops]
    try:
        _refuse_empty(words)
        result = command().main(args=words, prog_name="kinema", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except typer.Exit as stop:
        return int(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BrokenPipeError:
        return 0
    except Exception as error:
        if isinstance(error, usage_error):
            code, text = 2, error.format_message()  # type: ignore[attr-defined]
        elif _is_bad_input(error):
            code, text = 2, str(error)
        else:
            code, text = 1, _unexpected(error)
        if debug:
            import traceback

            traceback.print_exc()
        if _told_elsewhere(code):
            return code
        if text.strip():  # without a command the help has been printed, and there is nothing more to say
            rank = process()[0]
            who = f"kinema: process {rank}" if rank else "kinema"
            print(f"{who}: {' '.join(text.split())}", file=sys.stderr)
        return code
    finally:
        for number, handler in zip(stops, before, strict=True):
            signal.signal(number, handler)


def _refuse_empty(words: list[str]) -> None:
    """What is given and empty, as a shell's variable without a value makes it, is not as if left out."""
    from kinema.core.errors import KinemaError

    given = [word[:-1] for word in words if re.fullmatch(r"--[\w-]+=", word)]
    given += [option for option, word in itertools.pairwise(words) if word == "" and option.startswith("--")]
    for option in given:
        if option not in ("--", "--prompt", "--negative-prompt"):
            raise KinemaError(f"{option} is empty; give it a value, or leave it out")
    alone = any(word == "" and not before.startswith("--") for before, word in itertools.pairwise(words))
    if alone and words[0] != "generate":  # which says itself what an empty prompt is
        raise KinemaError(f"an argument of kinema {words[0]} is empty; give it a value")


def process() -> tuple[int, int]:
    """The number of this process, from 0, and how many torchrun started."""
    rank, count = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    together = rank.isdigit() and count.isdigit() and int(rank) < int(count)
    return (int(rank), int(count)) if together else (0, 1)


def _told_elsewhere(code: int) -> bool:
    """Whether another process tells what went wrong: torchrun ends all of them when one has ended with an error.

    All of them find the same bad input, which the first tells; and when one breaks down, the others only miss it.
    """
    rank, count = process()
    if count == 1 or (rank == 0 and code == 2):
        return False
    try:
        time.sleep(1 if rank == 0 else 5)
    except KeyboardInterrupt:
        return True
    return False


def _quiet_libraries() -> None:
    """What libraries remark on the way would stand beside the one sentence an error is told in."""
    import warnings

    warnings.simplefilter("ignore")
    for name in ("HF_HUB_VERBOSITY", "TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(name, "critical")


def _is_bad_input(error: Exception) -> bool:
    """KinemaError, or a plain ValueError that kinema itself raised; one from inside a library is not the user's."""
    from kinema.core.errors import KinemaError

    if isinstance(error, KinemaError) or type(error) is not ValueError:
        return isinstance(error, KinemaError)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("kinema")


def _unexpected(error: Exception) -> str:
    from kinema.files import reason

    memory = ("out of memory", "can't allocate memory")
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in memory):
        return "there is not enough memory; try fewer frames, a smaller size or --dtype bfloat16"
    what = reason(error) if isinstance(error, OSError) else str(error)
    first = next((line for line in what.splitlines() if line.strip()), "no reason given")
    return f"{type(error).__name__}: {first.strip()} (--debug shows where)"
