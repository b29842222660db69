"""Links are never wrong: what is computed for a number a constant away holds for every value."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xdpbatch import asm
from xdpbatch.compare import compare
from xdpbatch.errors import VerifierError
from xdpbatch.program import Object
from xdpbatch.verify import verify

NUMBERS = st.sampled_from((0, 1, 2, 7, 8, 63, -1, -2, -8, 2**31 - 1, -(2**31)))
SIGNS = st.sampled_from((">", ">=", "<", "<=", "s>", "s>=", "s<", "s<=", "==", "!="))


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Copies of a random number, moved by constants and compared; one is used as an offset."""
    lines = ["r6 = r1", "call get_prandom_u32"]
    lines += draw(st.sampled_from((["r0 <<= 32"], ["r0 s>>= 3"], [], ["r0 *= -1640531527"])))
    for number in (1, 2, 3):
        source = draw(st.sampled_from(("r0", *(f"r{n}" for n in range(1, number)))))
        lines += [f"r{number} = {source}", f"r{number} += {draw(NUMBERS)}"]
    for _ in range(draw(st.integers(1, 3))):
        word = draw(st.sampled_from("rrrw"))
        compared = f"{word}{draw(st.integers(0, 3))} {draw(SIGNS)} {draw(NUMBERS)}"
        lines.append(f"if {compared} goto out")
    used = draw(st.integers(0, 3))
    lines += [f"if r{used} > 63 goto out"] if draw(st.booleans()) else []
    lines += ["r4 = r10", f"r4 += {draw(st.sampled_from((-64, -72, -8, -65, -128)))}"]
    lines += [f"r4 += r{used}", "*(u8 *)(r4 + 0) = 1", "out:", "r0 = 2", "exit"]
    return "\n".join(lines)


@given(texts(), st.integers(1, 1 << 32))
def test_an_accepted_program_stays_in_its_stack(text: str, seed: int) -> None:
    program = asm.program(text, name="prog")
    try:
        verify(program)
    except VerifierError:
        return
    packets = [seed.to_bytes(8, "little") * 8] * 20
    report = compare(Object("", {"prog": program}, {}), packets, against=("interp",))
    assert report.difference is None, f"{report.difference}\n{text}"
