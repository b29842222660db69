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


class ModeName(StrEnum):
    """Where an interface's packets are taken: in its driver, or in the kernel's generic code."""

    native = "native"
    skb = "skb"


class CopyModeName(StrEnum):
    """Whether the driver uses our memory itself."""

    auto = "auto"
    copy = "copy"
    zero_copy = "zero-copy"


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
    int, typer.Option("-b", "--batch-size", min=1, max=4095, help="Packets per call.")
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


class LayoutName(StrEnum):
    """How the program is called."""

    single = "single"
    batch = "batch"
    poc = "poc"


class ResultsName(StrEnum):
    """Where verdicts go."""

    buff = "buff"
    array = "array"


class FormatName(StrEnum):
    """How findings are said."""

    full = "full"
    concise = "concise"
    json = "json"
    github = "github"
    sarif = "sarif"


class VerifyName(StrEnum):
    """Who must find a program safe before it runs."""

    strict = "strict"
    guard = "guard"
    kernel = "kernel"


OutputFormat = Annotated[
    FormatName, typer.Option("--output-format", help="full goes to stderr, all others to stdout.")
]
Verify = Annotated[
    VerifyName,
    typer.Option("--verify", help="guard: check at run time what is not proven; kernel: it too."),
]
Layout = Annotated[
    LayoutName, typer.Option("--layout", help="batch, or poc: exactly the slides' form.")
]
Results = Annotated[
    ResultsName,
    typer.Option("--results", help="Verdicts go to a field of xdp_buff, or to an array."),
]
Prefetch = Annotated[
    int, typer.Option("--prefetch", metavar="K", min=0, max=64, help="Fetch headers K ahead.")
]
Stage = Annotated[
    str,
    typer.Option("--stage", metavar="off|N|auto", help="Prefetch for N packets at a time."),
]
PocFixed = Annotated[
    bool, typer.Option("--poc-fixed", help="Put right what is wrong in the slides' form.")
]
Json = Annotated[bool, typer.Option("-j", "--json", help="One JSON object on stdout.")]
Pretty = Annotated[bool, typer.Option("-p", "--pretty", help="Indent the JSON.")]
Quiet = Annotated[bool, typer.Option("-Q", "--quiet", help="No messages on stderr.")]
Interfaces = Annotated[
    list[str] | None,
    typer.Option("-i", "--interface", metavar="IFACE", help="Live interface; may be repeated."),
]
Queues = Annotated[
    str, typer.Option("-q", "--queue", metavar="all|0|0-3", help="Receive queues to take over.")
]
AttachMode = Annotated[ModeName, typer.Option("-m", "--mode", help="In the driver, or after it.")]
CopyModeOption = Annotated[
    CopyModeName, typer.Option("-C", "--copy-mode", help="auto: zero-copy where the driver can.")
]
Duration = Annotated[
    float | None, typer.Option("-d", "--duration", min=0, help="Seconds; without: until ctrl-C.")
]
Interval = Annotated[
    float, typer.Option("-I", "--interval", min=0, help="Seconds between rates; 0: none.")
]
Extended = Annotated[bool, typer.Option("-e", "--extended", help="Rates by queue, reasons.")]
Ifindex = Annotated[
    int, typer.Option("--ifindex", min=1, help="ctx->ingress_ifindex of captures and SPECs.")
]
RxQueue = Annotated[int, typer.Option("--rx-queue", min=0, help="ctx->rx_queue_index.")]
EgressIfindex = Annotated[
    int, typer.Option("--egress-ifindex", min=0, help="ctx->egress_ifindex (devmap programs).")
]
Meta = Annotated[
    str, typer.Option("--meta", metavar="HEX", help="Metadata in front of every packet.")
]
ClockOption = Annotated[
    str,
    typer.Option("--clock", metavar="real|fixed[=NS]|capture", help="What the clock helpers say."),
]
Seed = Annotated[
    int,
    typer.Option("--seed", min=0, help="Of get_prandom_u32 and of hashes; 0: a new one each time."),
]
EventsFile = Annotated[
    str | None,
    typer.Option(
        "--events", metavar="FILE|-|text", help="Records and printed lines: NDJSON, or as text."
    ),
]
BtfFile = Annotated[
    str,
    typer.Option("--btf", metavar="FILE|own", help="Types for CO-RE; default the kernel's own."),
]
Kconfig = Annotated[
    str,
    typer.Option("--kconfig", metavar="FILE", help="Kernel configuration, default this one's."),
]
HostOption = Annotated[
    str,
    typer.Option(
        "--host", metavar="FILE|live|none", help="What fib_lookup and its kin ask; default live."
    ),
]
MapFiles = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="[NAME=]FILE", help="Contents before, as JSON; repeatable."),
]
DumpMaps = Annotated[
    str | None,
    typer.Option("--dump-maps", metavar="FILE", help="Contents of all maps after, `-` is stdout."),
]
