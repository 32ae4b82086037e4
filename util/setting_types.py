"""What values a setting takes: its declaration in config/uniphd.py is annotated with one of these.

    num_groups: Whole(least=1) = 20
    within_type: OneOf("graph", "self") = "graph"
    crop_range: ListOf(Whole(least=16), length=2, ascending=True) = [384, 600]

Every type describes itself for the error that a wrong value ends in.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from util.errors import UserError, shown

MOST_LEVELS = 16  # of lists and dictionaries inside each other
_MOST_ENTRIES = 1000  # of a list or dictionary
_MOST_CHARACTERS = 4096  # of a text: as long as a path can be


class ConfigError(UserError):
    """A configuration file or option that cannot be used; the message says why."""


class SettingType(ABC):
    """The values that a setting takes."""

    @property
    @abstractmethod
    def expected(self) -> str:
        """What is expected, to follow "must be"."""

    @abstractmethod
    def accepted(self, value: Any, name: str) -> Any:
        """`value` in the form that a configuration keeps, shared with nobody.

        Args:
            value: as a file or command line gives it.
            name: of the setting, for the error.

        Raises:
            ConfigError: the setting does not take it.
        """

    def refusal(self, value: Any, name: str) -> ConfigError:
        """The error that a wrong value ends in."""
        return ConfigError(f"Setting '{name}' must be {self.expected}; got {shown(value)}.")


@dataclass(frozen=True)
class Anything(SettingType):
    """Whatever a configuration file can hold; tuples become lists."""

    expected = "None, bool, int, finite float, str, or lists and dictionaries of these"

    def accepted(self, value: Any, name: str, level: int = 0) -> Any:
        """See `SettingType.accepted`; `level` counts the lists and dictionaries around it."""
        if level < MOST_LEVELS and not _is_huge(value):
            if isinstance(value, (list, tuple)):
                return [self.accepted(item, name, level + 1) for item in value]
            if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
                return {
                    key: self.accepted(item, f"{name}.{key}", level + 1)
                    for key, item in value.items()
                }
        finite = type(value) is float and math.isfinite(value)
        text = type(value) is str and not _is_huge(value)
        if value is None or type(value) in (bool, int) or finite or text:
            return Whole().accepted(value, name) if type(value) is int else value
        raise self.refusal(value, name)


@dataclass(frozen=True)
class Flag(SettingType):
    """True or False."""

    expected = "True or False"

    def accepted(self, value: Any, name: str) -> bool:
        """See `SettingType.accepted`."""
        if type(value) is not bool:
            raise self.refusal(value, name)
        return value


@dataclass(frozen=True)
class Text(SettingType):
    """A string that can be a name or a path."""

    expected = "text (in quotes where it looks like something else)"

    def accepted(self, value: Any, name: str) -> str:
        """See `SettingType.accepted`."""
        if type(value) is not str or "\0" in value or _is_huge(value):
            raise self.refusal(value, name)
        return value


@dataclass(frozen=True)
class Number(SettingType):
    """A finite number, kept as a float; every bound that is named belongs to the range but `above`.

    Attributes:
        least, most: the smallest and the largest value.
        above: all values are greater.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    _noun = "a number"

    @property
    def expected(self) -> str:
        """See `SettingType.expected`."""
        bounds = [
            f"{word} {bound}"
            for word, bound in (
                ("above", self.above),
                ("of at least", self.least),
                ("at most", self.most),
            )
            if bound is not None
        ]
        return " ".join([self._noun, " and ".join(bounds)]).strip()

    def accepted(self, value: Any, name: str) -> float:
        """See `SettingType.accepted`."""
        try:
            number = float(value) if type(value) in (int, float) else math.nan
        except OverflowError:
            number = math.inf
        if not math.isfinite(number) or not self._in_range(number):
            raise self.refusal(value, name)
        return number

    def _in_range(self, number: float) -> bool:
        return (
            (self.least is None or number >= self.least)
            and (self.most is None or number <= self.most)
            and (self.above is None or number > self.above)
        )


@dataclass(frozen=True)
class Whole(Number):
    """A whole number of up to 64 bits, kept as an int; bounds as in `Number`."""

    _noun = "a whole number"

    def accepted(self, value: Any, name: str) -> int:
        """See `SettingType.accepted`."""
        if type(value) is not int or not self._in_range(value) or abs(value) >= 2**63:
            raise self.refusal(value, name)
        return value


@dataclass(frozen=True, init=False)
class OneOf(SettingType):
    """One of some strings."""

    choices: tuple[str, ...]

    def __init__(self, *choices: str) -> None:
        object.__setattr__(self, "choices", choices)

    @property
    def expected(self) -> str:
        """See `SettingType.expected`."""
        return " or ".join(repr(choice) for choice in self.choices)

    def accepted(self, value: Any, name: str) -> str:
        """See `SettingType.accepted`."""
        if type(value) is not str or value not in self.choices:
            raise self.refusal(value, name)
        return value


@dataclass(frozen=True)
class OrNone(SettingType):
    """None, or a value of another type."""

    inner: SettingType

    @property
    def expected(self) -> str:
        """See `SettingType.expected`."""
        return f"{self.inner.expected}, or None"

    def accepted(self, value: Any, name: str) -> Any:
        """See `SettingType.accepted`."""
        if value is None:
            return None
        try:
            return self.inner.accepted(value, name)
        except ConfigError:
            raise self.refusal(value, name) from None


@dataclass(frozen=True)
class OrFlag(SettingType):
    """True, False, or a value of another type."""

    inner: SettingType

    @property
    def expected(self) -> str:
        """See `SettingType.expected`."""
        return f"True, False, or {self.inner.expected}"

    def accepted(self, value: Any, name: str) -> Any:
        """See `SettingType.accepted`."""
        if type(value) is bool:
            return value
        try:
            return self.inner.accepted(value, name)
        except ConfigError:
            raise self.refusal(value, name) from None


@dataclass(frozen=True)
class OrRange(SettingType):
    """A number, or a pair of them (lowest, highest) to draw from."""

    inner: Number

    @property
    def expected(self) -> str:
        """See `SettingType.expected`."""
        return f"{self.inner.expected}, or a pair of these (lowest, highest)"

    def accepted(self, value: Any, name: str) -> Any:
        """See `SettingType.accepted`."""
        pair = ListOf(self.inner, length=2, ascending=True)
        try:
            kind = pair if isinstance(value, (list, tuple)) else self.inner
            return kind.accepted(value, name)
        except ConfigError:
            raise self.refusal(value, name) from None


@dataclass(frozen=True)
class ListOf(SettingType):
    """A list; a single value stands for a list of one.

    Attributes:
        inner: type of the entries.
        least: the smallest number of entries.
        length: the only number of entries.
        ascending: no entry is smaller than the one before it.
    """

    inner: SettingType
    least: int = 0
    length: int | None = None
    ascending: bool = False

    @property
    def expected(self) -> str:
        """See `SettingType.expected`."""
        count = "" if self.length is None else f" of {self.length}"
        count = f" of at least {self.least}" if self.least else count
        order = ", none smaller than the one before" if self.ascending else ""
        return f"a list{count}, each {self.inner.expected}{order}"

    def accepted(self, value: Any, name: str) -> list:
        """See `SettingType.accepted`."""
        items = value if isinstance(value, (list, tuple)) else [value]
        if len(items) < self.least or self.length not in (None, len(items)) or _is_huge(items):
            raise self.refusal(value, name)
        items = [self.inner.accepted(item, f"{name}[{i}]") for i, item in enumerate(items)]
        if self.ascending and items != sorted(items):
            raise self.refusal(value, name)
        return items


@dataclass(frozen=True)
class Table(SettingType):
    """A dictionary with types of its own.

    Attributes:
        types: by key.
        others: type of every other key of the declared value.
        takes_new: keys that the declared value does not have are of the type `others`, too.
        required: keys that have to be there, where dictionaries are entries of a list.
    """

    types: Mapping[str, SettingType] = field(default_factory=dict)
    others: SettingType | None = None
    takes_new: bool = False
    required: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """See `SettingType.expected`."""
        needed = f" ({', '.join(self.required)} has to be there)" if self.required else ""
        return f"a dictionary with some of the keys {', '.join(self.types)}{needed}"

    def declared_with(self, keys: Iterable[str]) -> Table:
        """The same type with a name for each of the declared value's keys."""
        named = {} if self.others is None else dict.fromkeys(keys, self.others)
        return replace(self, types={**named, **self.types})

    def type_of(self, key: str) -> SettingType | None:
        """The type of a key; None: there is no such key."""
        return self.types.get(key, self.others if self.takes_new else None)

    def accepted(self, value: Any, name: str) -> dict[str, Any]:
        """See `SettingType.accepted`."""
        if (
            not isinstance(value, Mapping)
            or any(self.type_of(key) is None for key in value)
            or any(key not in value for key in self.required)
        ):
            raise self.refusal(value, name)
        return {
            key: self.type_of(key).accepted(item, f"{name}.{key}") for key, item in value.items()
        }


def type_like(value: Any) -> SettingType:
    """The type of a setting that is declared by its value alone.

    An int stands for any int, a float for any number, a string for any or None, None for anything,
    a list for lists whose entries are like its own, a dictionary for its own keys; an empty one
    takes any.
    """
    if isinstance(value, Mapping):
        types = {key: type_like(item) for key, item in value.items()}
        return Table(types, others=Anything(), takes_new=not value)
    if isinstance(value, (list, tuple)):
        inner = [type_like(item) for item in value]
        alike = inner and all(entry == inner[0] for entry in inner)
        return ListOf(inner[0] if alike else Anything())
    by_type = {bool: Flag(), int: Whole(), float: Number(), str: OrNone(Text())}
    return by_type.get(type(value), Anything())


def _is_huge(value: Any) -> bool:
    """Whether a text, list or dictionary is longer than any that a configuration has a use for."""
    if isinstance(value, str):
        return len(value) > _MOST_CHARACTERS
    return isinstance(value, (list, tuple, Mapping)) and len(value) > _MOST_ENTRIES
