"""The command line: `xdpbatch COMMAND`. A module cli/NAME.py with a `command` is a command,
one with an `app` is a group of commands.

stdout is data, stderr is messages. Exit status: 0 done, 1 the answer is no (refused, differs),
2 usage or unreadable input, 130 interrupted. Heavy modules are imported by the command that needs
them, so that `--help` is quick.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys

import typer

from xdpbatch.errors import XdpBatchError

SUMMARY = """Run unmodified XDP programs over batches of packets, as native code, in user space.

The program is proven safe, rewritten into a loop over an array of xdp_buffs, compiled, and run over
a capture, synthetic traffic or a network interface.
"""


def build() -> typer.Typer:
    """The application with every command of this package."""
    app = typer.Typer(
        help=SUMMARY,
        add_completion=False,
        rich_markup_mode=None,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        found = importlib.import_module(f"{__name__}.{module}")
        if hasattr(found, "command"):
            app.command(module.replace("_", "-"))(found.command)
        elif hasattr(found, "app"):
            app.add_typer(found.app, name=module)
    return app


def main() -> None:
    """Entry point: errors in the house format on stderr, never a traceback for bad input."""
    try:
        build()(standalone_mode=True)
    except XdpBatchError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.status) from None
    except BrokenPipeError:
        # The reader of stdout went away (`| head`): nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
