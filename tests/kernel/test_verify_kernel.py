"""`--verify kernel`: the running kernel's verdict, its log in this project's shape."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from xdpbatch import asm
from xdpbatch.errors import UnsupportedError, VerifierError
from xdpbatch.program import Object
from xdpbatch.runtime import Instance

pytestmark = pytest.mark.kernel
EXAMPLES = Path(__file__).parents[2] / "src/xdpbatch/examples"


def stages(text: str) -> None:
    program = asm.program(text, name="prog")
    obj = Object("", {"prog": program}, program.maps)
    try:
        Instance(obj, kernel=True).stages(program)
    except UnsupportedError as error:
        pytest.skip(f"bpf(2) is not allowed: {error}")


def test_accepted_by_both() -> None:
    stages("r0 = 2\nexit")


def test_the_kernel_says_where_and_why() -> None:
    with pytest.raises(VerifierError) as caught:
        stages("r2 = *(u32 *)(r1 + 0)\nr0 = *(u8 *)(r2 + 3)\nexit")
    (found,) = caught.value.diagnostics
    assert found.code == "kernel-verifier"
    assert "invalid access to packet" in found.message
    assert found.where.startswith("insn 1,")


def test_the_commands() -> None:
    stages("r0 = 2\nexit")
    for command in (["verify"], ["run", "--synth", "udp,count=100"]):
        done = subprocess.run(
            [sys.executable, "-m", "xdpbatch", *command, "--verify", "kernel", EXAMPLES / "drop.o"],
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "accepted by the kernel" in done.stdout
