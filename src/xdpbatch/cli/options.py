"""Options that several commands share, each declared once: letter, meaning, help."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class BackendName(StrEnum):
    """How the program is executed."""

    llvm = "llvm"
    x86 = "x86"
    interp = "interp"
    kernel = "kernel"


ObjectFile = Annotated[
    Path, typer.Argument(metavar="PROG.o", help="ELF object that clang made for the kernel.")
]
ProgName = Annotated[
    str | None,
    typer.Option("-n", "--prog-name", metavar="NAME", help="Program (C function) to take."),
]
Section = Annotated[
    str | None, typer.Option("-s", "--section", metavar="NAME", help="Section to take it from.")
]
BatchSize = Annotated[
    int, typer.Option("-b", "--batch-size", min=1, max=4096, help="Packets per call.")
]
Backend = Annotated[BackendName, typer.Option("--backend", help="Who executes the program.")]
Read = Annotated[
    str | None,
    typer.Option("-r", "--read", metavar="IN.pcap", help="Capture to read, `-` for stdin."),
]
Synth = Annotated[
    str | None,
    typer.Option("--synth", metavar="SPEC", help="Synthetic traffic: udp,size=64,flows=1000."),
]
Write = Annotated[
    str | None,
    typer.Option(
        "-w", "--write", metavar="OUT.pcapng", help="Write packets and verdicts, `-` for stdout."
    ),
]
Count = Annotated[
    int | None, typer.Option("-c", "--count", min=0, help="Stop after this many packets.")
]
Json = Annotated[bool, typer.Option("-j", "--json", help="One JSON object on stdout.")]
Pretty = Annotated[bool, typer.Option("-p", "--pretty", help="Indent the JSON.")]
Quiet = Annotated[bool, typer.Option("-Q", "--quiet", help="No messages on stderr.")]
