"""Formatting as programs do it: bpf_trace_printk() and its kin.

Analogous to bpf_bprintf_prepare() (kernel/bpf/helpers.c) and bstr_printf() (lib/vsprintf.c): %d %i
%u %x %X with l and ll, %c %s %p, flags `0+- ` and a width. What a pointer points to is never read,
for a program can pass any number: %s prints nothing and %pI4 a zero address, as the kernel prints
where it cannot read. A plain %p is the number itself, where the kernel prints a hash of it.
"""

from __future__ import annotations

import errno

from xdpbatch.mem import add64, load8, load64, mul64, shr64, store8
from xdpbatch.native import native

EINVAL = errno.EINVAL
LEFT, PLUS, SPACE, ZERO, SIGNED, UPPER = 1, 2, 4, 8, 16, 32  # flags of a conversion
BLANK, PERCENT, PLUS_SIGN, MINUS_SIGN, POINT, DIGIT_0, DIGIT_9, COLON = map(ord, " %+-.09:")
CHAR_C, CHAR_D, CHAR_I, CHAR_K, CHAR_L, CHAR_P, CHAR_S, CHAR_U, CHAR_X = map(ord, "cdiklpsux")
UPPER_B, UPPER_I, UPPER_K, UPPER_S, UPPER_X = map(ord, "BIKSX")
DIGIT_4, DIGIT_6 = map(ord, "46")
POINTER_WIDTH = 16


@native
def put(out: int, room: int, at: int, char: int) -> int:
    """Write a character if there is room; the position after it."""
    if at < room:
        store8(out + at, char)
    return at + 1


@native
def repeat(out: int, room: int, at: int, char: int, count: int) -> int:
    """Write a character `count` times, none for a negative count."""
    for i in range(min(count, max(room - at, 0))):
        store8(out + at + i, char)
    return at + max(count, 0)


@native
def is_space(char: int) -> int:
    """isspace() of an ASCII character."""
    return int(char == 32 or (char >= 9 and char <= 13))


@native
def is_end(char: int) -> int:
    """Whether a character may follow %p and %s: NUL, white space, punctuation."""
    if char == 0 or is_space(char) != 0:
        return 1
    if char >= 123:
        return int(char < 127)
    if char >= 91:
        return int(char <= 96)
    return int((char >= 33 and char <= 47) or (char >= 58 and char <= 64))


@native
def digit(value: int, upper: int) -> int:
    """The character of a hexadecimal digit."""
    if value < 10:
        return DIGIT_0 + value
    if upper != 0:
        return 55 + value
    return 87 + value


@native
def digits_of(value: int, base: int) -> int:
    """How many digits an unsigned 64-bit number has."""
    count = 1
    value = divide(value, base)
    while value != 0:
        value = divide(value, base)
        count += 1
    return count


@native
def divide(value: int, base: int) -> int:
    """Unsigned 64-bit division by 10 or 16."""
    if base == 16:
        return shr64(value, 4)
    return shr64(value, 1) // 5


@native
def number(out: int, room: int, at: int, value: int, base: int, width: int, flags: int) -> int:
    """Write a number, padded."""
    sign = 0
    if flags & SIGNED != 0:
        if value < 0:
            sign = MINUS_SIGN
            value = mul64(value, -1)
        elif flags & PLUS != 0:
            sign = PLUS_SIGN
        elif flags & SPACE != 0:
            sign = BLANK
    count = digits_of(value, base)
    padding = width - count - int(sign != 0)
    if flags & (LEFT | ZERO) == 0:
        at = repeat(out, room, at, BLANK, padding)
    if sign != 0:
        at = put(out, room, at, sign)
    if flags & (LEFT | ZERO) == ZERO:
        at = repeat(out, room, at, DIGIT_0, padding)
    for i in range(count):
        left = value
        for _ in range(count - 1 - i):
            left = divide(left, base)
        low = add64(left, mul64(divide(left, base), -base))
        at = put(out, room, at, digit(low, flags & UPPER))
    if flags & LEFT != 0:
        at = repeat(out, room, at, BLANK, padding)
    return at


@native
def flag_of(char: int) -> int:
    """The flag that a character after `%` stands for, 0 if it is none."""
    if char == DIGIT_0:
        return ZERO
    if char == PLUS_SIGN:
        return PLUS
    if char == MINUS_SIGN:
        return LEFT
    return SPACE * int(char == BLANK)


@native
def unread(out: int, room: int, at: int, kind: int, version: int) -> int:
    """What %pI4, %pi4, %pI6 and %pi6 print where the address cannot be read: zeros."""
    parts, wide, between = 4, 1, POINT
    if version == DIGIT_6:
        parts, wide, between = 8, 4, COLON
    elif kind == CHAR_I:
        wide = 3
    for i in range(parts):
        if i > 0 and (version == DIGIT_4 or kind == UPPER_I):
            at = put(out, room, at, between)
        at = repeat(out, room, at, DIGIT_0, wide)
    return at


@native
def pointer(out: int, room: int, at: int, spec: int, value: int, width: int, flags: int) -> int:
    """Write what a %p conversion stands for; `spec` is the address of the `p`. -EINVAL if unknown.

    The position is packed with how many characters the conversion has: position << 8 | characters.
    """
    kind = load8(spec + 1)
    if kind == CHAR_I or kind == UPPER_I:
        version = load8(spec + 2)
        if version != DIGIT_4 and version != DIGIT_6:
            return -EINVAL
        return unread(out, room, at, kind, version) << 8 | 3
    if (kind == CHAR_K or kind == CHAR_U) and load8(spec + 2) == CHAR_S:
        if is_end(load8(spec + 3)) == 0:
            return -EINVAL
        return repeat(out, room, at, BLANK, width) << 8 | 3
    extra = int(kind == UPPER_K or kind == CHAR_X or kind == CHAR_S or kind == UPPER_S)
    extra |= int(kind == UPPER_B)
    if extra == 0 and is_end(kind) == 0:
        return -EINVAL
    if width == 0:
        width = POINTER_WIDTH
        flags |= ZERO
    return number(out, room, at, value, 16, width, flags) << 8 | 1 + extra


@native
def integer(out: int, room: int, at: int, char: int, value: int, width: int, flags: int) -> int:
    """Write an integer conversion; `flags` has SIGNED for 64-bit values. -EINVAL if unknown."""
    wide = flags & SIGNED
    flags &= ~SIGNED
    if char == CHAR_D or char == CHAR_I:
        if wide == 0:
            value = ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
        return number(out, room, at, value, 10, width, flags | SIGNED)
    if wide == 0:
        value &= 0xFFFFFFFF
    if char == CHAR_U:
        return number(out, room, at, value, 10, width, flags)
    if char == CHAR_X:
        return number(out, room, at, value, 16, width, flags)
    if char == UPPER_X:
        return number(out, room, at, value, 16, width, flags | UPPER)
    return -EINVAL


@native
def text_length(text: int, size: int) -> int:
    """Bytes before the NUL, -EINVAL if there is none within `size`."""
    for i in range(size):
        if load8(text + i) == 0:
            return i
    return -EINVAL


@native
def argument(args: int, n: int, a: int, b: int, c: int) -> int:
    """Argument `n`: of the array at `args`, or if that is 0 of the three registers."""
    if args != 0:
        return load64(args + 8 * n)
    if n == 0:
        return a
    if n == 1:
        return b
    return c


@native
def convert(out: int, room: int, at: int, spec: int, value: int) -> int:
    """Write one conversion; `spec` is the address after its `%`. -EINVAL if it is not known.

    The position is packed with how many characters the conversion has: position << 8 | characters.
    """
    i = 0
    flags = 0
    while flag_of(load8(spec + i)) != 0:
        flags |= flag_of(load8(spec + i))
        i += 1
    width = 0
    while load8(spec + i) >= DIGIT_0 and load8(spec + i) <= DIGIT_9:
        width = min(width * 10 + load8(spec + i) - DIGIT_0, 0x7FFF)
        i += 1
    char = load8(spec + i)
    if char == CHAR_P:
        done = pointer(out, room, at, spec + i, value, width, flags)
        if done < 0:
            return done
        return done + i
    if char == CHAR_S and is_end(load8(spec + i + 1)) != 0:
        return repeat(out, room, at, BLANK, width) << 8 | i + 1
    if char == CHAR_C:
        if flags & LEFT == 0:
            at = repeat(out, room, at, BLANK, width - 1)
        at = put(out, room, at, value & 0xFF)
        if flags & LEFT != 0:
            at = repeat(out, room, at, BLANK, width - 1)
        return at << 8 | i + 1
    for _ in range(2):
        if load8(spec + i) == CHAR_L:
            flags |= SIGNED
            i += 1
    done = integer(out, room, at, load8(spec + i), value, width, flags)
    if done < 0:
        return done
    return done << 8 | i + 1


@native
def printf(
    out: int, room: int, format: int, size: int, args: int, count: int, a: int, b: int, c: int
) -> int:
    """Write at most `room` bytes; how many the whole text has, or -EINVAL for a bad format.

    The `count` arguments are u64s at `args`, or if that is 0 `a`, `b` and `c`.
    """
    end = text_length(format, size)
    if end < 0:
        return end
    i = 0
    at = 0
    used = 0
    while i < end:
        char = load8(format + i)
        if char < 128 and (char < BLANK or char == 127) and is_space(char) == 0:
            return -EINVAL
        if char != PERCENT:
            at = put(out, room, at, char)
            i += 1
        elif load8(format + i + 1) == PERCENT:
            at = put(out, room, at, PERCENT)
            i += 2
        else:
            if used >= count:
                return -EINVAL
            value = argument(args, used, a, b, c)
            done = convert(out, room, at, format + i + 1, value)
            if done < 0:
                return done
            at = done >> 8
            i += 1 + (done & 0xFF)
            used += 1
    return at
