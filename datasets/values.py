"""Values of a JSON file: telling usable numbers from everything else, showing what came instead."""

from __future__ import annotations

from typing import Any

from util.errors import UserError

# No coordinate, area or share is larger; float32 holds numbers of this size, and their products.
LARGEST_NUMBER = 1e9

# Ids are kept as 64-bit integers.
_LARGEST_ID = 2**63 - 1

_NUMBERS = {int, float}  # and not bool, which is a kind of int


def is_integer(value: Any) -> bool:
    """Whether `value` is an integer of at most 64 bits; True and False are not."""
    return type(value) is int and -_LARGEST_ID <= value <= _LARGEST_ID


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number of at most `LARGEST_NUMBER`; True and False are not."""
    return type(value) in _NUMBERS and -LARGEST_NUMBER <= value <= LARGEST_NUMBER


def are_numbers(values: Any) -> bool:
    """Whether `values` is a list of such numbers; see `is_number`."""
    if not isinstance(values, list) or not set(map(type, values)) <= _NUMBERS:
        return False
    if not values:
        return True
    # Without a Python loop. `min` and `max` pass over a NaN, the sum does not.
    if not (min(values) >= -LARGEST_NUMBER and max(values) <= LARGEST_NUMBER):
        return False
    total = sum(values)
    return total == total


def require_whole_text(text: str, name: str) -> None:
    r"""A text has to be without halves of characters, such as JSON's "\ud800" alone.

    Raises:
        UserError: naming it by `name`.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{name} holds half a character ({text[error.start]!r}) at place {error.start}, which "
            f"no text can have; write it again."
        ) from error
