"""Addresses of the stack that went through integers become pointers again.

Analogous to nothing in LLVM, which may not do it: it cannot know that `p + 8`, computed as an
integer, still means p's object. Here it does: a native function reaches an object only from the
address it was given. Only then does LLVM see all uses of a program's stack, and keys are hashed
and compared in registers; in memory, an 8-byte load of what two stores wrote waits for both.

Before                                      After
  %1 = ptrtoint ptr %key to i64               %1 = ptrtoint ptr %key to i64
  %2 = or disjoint i64 %1, 8                  %2 = or disjoint i64 %1, 8
  %3 = inttoptr i64 %2 to ptr                 %3 = getelementptr i8, ptr %key, i64 8
"""

from __future__ import annotations

import re

_NAME = r'%(?:"[^"]+"|[-\w.$]+)'
_ADDRESS = re.compile(rf"^ *({_NAME}) = ptrtoint ptr ({_NAME}) to i64", re.MULTILINE)
_SUM = re.compile(
    rf"^ *({_NAME}) = (?:add|or disjoint)(?: nuw| nsw)* i64 ({_NAME}), (-?\d+)", re.MULTILINE
)
_POINTER = re.compile(rf"^( *{_NAME} = )inttoptr i64 ({_NAME}) to ptr$", re.MULTILINE)

Place = tuple[str, int]  # a pointer and what is added to it


def pointers(text: str) -> str:
    """The IR text of a module with such addresses as pointers, function by function."""
    return "".join(map(_pointers, re.split(r"^(?=define )", text, flags=re.MULTILINE)))


def _pointers(text: str) -> str:
    places: dict[str, Place] = {name: (base, 0) for name, base in _ADDRESS.findall(text)}
    for name, operand, offset in _SUM.findall(text):
        if operand in places:
            base, before = places[operand]
            places[name] = base, before + int(offset)

    def pointer(match: re.Match[str]) -> str:
        if match[2] not in places:
            return match[0]
        base, offset = places[match[2]]
        return f"{match[1]}getelementptr i8, ptr {base}, i64 {offset}"

    return _POINTER.sub(pointer, text)
