"""Settings from Python files and the command line.

A configuration file is a Python file of plain values::

    _base_ = "uniphd.py"              # or a list of files, each relative to this one
    lr = 5e-5                         # replaces the base's value
    loss_weights = dict(mask=0.0)     # merges into the base's dictionary: its other keys stay

The rules, for derived files and for `--options` alike:

- Only settings that exist can be changed; an unknown name is an error that names the nearest
  known one.  A file without `_base_` declares its settings.
- A value keeps its setting's type.  An int is taken where a float is expected, a single value
  where a list is expected, None where the setting is None or a string, and anything where the
  setting is None.
- Dictionaries merge key by key under the same rules.  One whose name ends in `_options` holds
  somebody else's keyword arguments and takes any key.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import math
import os
import pprint
import re
import runpy
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class ConfigError(ValueError):
    """A configuration file or option that cannot be used; the message says why."""


class Config(Mapping):
    """Settings with attribute access: `cfg.lr`, `cfg.loss_weights.mask`, `**cfg.match_costs`.

    Nested dictionaries are `Config` objects themselves.  Assigning an attribute obeys the rules
    at the top of this file.

    Args:
        values: plain values only: None, bool, int, finite float, str, and lists, tuples and
            dictionaries (with identifiers as keys) of these.

    Raises:
        ConfigError: a value of another type, or a name that cannot be an attribute.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any] | None = None):
        object.__setattr__(self, "_values", {})
        for key, value in (values or {}).items():
            self._values[_checked_name(key)] = _plain(value, key)

    # --- reading -----------------------------------------------------------------------------

    @classmethod
    def fromfile(cls, path: str | os.PathLike) -> Config:
        """Read a Python configuration file and the files its `_base_` names.

        Raises:
            FileNotFoundError: the file, or a base of it, does not exist.
            ConfigError: the file does not run, names itself as its base, or breaks the rules.
        """
        return cls._fromfile(Path(path), ())

    @classmethod
    def _fromfile(cls, path: Path, derived: tuple[Path, ...]) -> Config:
        path = path.resolve()
        if not path.is_file():
            origin = f" (a _base_ of {derived[-1]})" if derived else ""
            raise FileNotFoundError(f"Configuration file {path}{origin} does not exist.")
        if path in derived:
            chain = " -> ".join(file.name for file in (*derived, path))
            raise ConfigError(f"Configuration files name each other as _base_: {chain}")
        try:
            namespace = runpy.run_path(str(path))
        except Exception as error:
            raise ConfigError(
                f"Configuration file {path} cannot be read: {type(error).__name__}: {error}"
            ) from error

        bases = namespace.get("_base_", [])
        bases = [bases] if isinstance(bases, str) else bases
        if not isinstance(bases, (list, tuple)) or not all(isinstance(b, str) for b in bases):
            raise ConfigError(f"{path}: _base_ must be a file name or a list of them: {bases!r}")
        settings = {
            key: value
            for key, value in namespace.items()
            if not key.startswith("_") and not isinstance(value, types.ModuleType)
        }
        try:
            if not bases:
                return cls(settings)
            config = cls()
            for base in bases:
                for key, value in cls._fromfile(path.parent / base, (*derived, path)).items():
                    if key in config:
                        config._set(key, value, key)
                    else:
                        config._values[key] = value
            config.merge_from_dict(settings)
        except ConfigError as error:
            if str(path) in str(error):
                raise
            raise ConfigError(f"{path}: {error}") from error
        return config

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        # Only called where no real attribute exists.  Python's own protocols (copy, pickle) ask
        # for underscore names, before `_values` is there.
        if name.startswith("_") or name not in self._values:
            raise AttributeError(f"Unknown setting '{name}'. {_nearest(name, self)}")
        return self._values[name]

    def __repr__(self) -> str:
        return f"Config({self.to_dict()!r})"

    def to_dict(self) -> dict[str, Any]:
        """A copy made of plain values, nested dictionaries included."""
        return {key: _unwrapped(value) for key, value in self._values.items()}

    # --- changing ----------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        self.merge_from_dict({name: value})

    def __getstate__(self) -> dict[str, Any]:
        return self.to_dict()

    def __setstate__(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "_values", Config(state)._values)

    def merge_from_dict(self, options: Mapping[str, Any]) -> None:
        """Change settings; a dotted key (`loss_weights.mask`) reaches into a dictionary.

        Nothing is changed if any of the options is refused.

        Raises:
            ConfigError: an unknown key (the message names the nearest), or a wrong type.
        """
        merged = Config(self)
        for key, value in options.items():
            merged._set(str(key), value, str(key))
        object.__setattr__(self, "_values", merged._values)

    def _set(self, key: str, value: Any, full_key: str) -> None:
        """Change one setting of this level; `full_key` is its name for messages."""
        first, _, rest = key.partition(".")
        if first not in self._values:
            raise ConfigError(f"Unknown setting '{full_key}'. {_nearest(full_key, self)}")
        old = self._values[first]
        if not isinstance(old, Config):
            if rest:
                raise ConfigError(
                    f"Unknown setting '{full_key}': '{first}' is no dictionary but {old!r}."
                )
            self._values[first] = _converted(value, old, full_key)
            return
        changes = {rest: value} if rest else value
        if not isinstance(changes, Mapping):
            raise ConfigError(
                f"Setting '{full_key}' is a dictionary with the keys {', '.join(old) or '(none)'}; "
                f"got {value!r}. Change one key with {full_key}.KEY=VALUE."
            )
        for inner_key, inner_value in changes.items():
            inner_full_key = full_key if rest else f"{full_key}.{inner_key}"
            inner_first = str(inner_key).partition(".")[0]
            if inner_first not in old and first.endswith("_options"):
                old._values[_checked_name(inner_key)] = _plain(inner_value, inner_full_key)
            elif inner_first not in old:
                raise ConfigError(
                    f"Unknown setting '{inner_full_key}'. "
                    f"{_nearest(f'{first}.{inner_key}', Config({first: old}))}"
                )
            else:
                old._set(str(inner_key), inner_value, inner_full_key)

    # --- writing -----------------------------------------------------------------------------

    def dump(self, path: str | os.PathLike) -> None:
        """Write a configuration file that `fromfile` reads back to an equal `Config`."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.write_text(self.dumps(), encoding="utf-8")
        os.replace(temporary, path)

    def dumps(self) -> str:
        """The text of the file that `dump` writes."""
        lines = ['"""All settings of a run, without _base_."""\n']
        for key, value in self.to_dict().items():
            text = pprint.pformat(value, width=96 - len(key), sort_dicts=False)
            lines.append(f"{key} = " + text.replace("\n", "\n" + " " * (len(key) + 3)))
        return "\n".join(lines) + "\n"


# --- the command line ----------------------------------------------------------------------------


def parse_option_value(text: str) -> Any:
    """The value that a piece of a command line stands for.

    Int, float, bool (`True`, `true`), None (`None`, `none`), a comma list (`1,2` -> [1, 2]; a
    trailing comma makes a list of one), nested lists and tuples (`[a,b],[c]`, `(1,2)`), a quoted
    string taken literally, and any other text as the string that it is.

    Raises:
        ConfigError: brackets or quotes that do not match.
    """
    parts = _split_at_commas(text)
    if len(parts) > 1:
        if not parts[-1].strip():
            parts.pop()
        return [parse_option_value(part) for part in parts]
    text = text.strip()
    constants = {"true": True, "false": False, "none": None}
    if text.lower() in constants:
        return constants[text.lower()]
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        return float(text)
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return ast.literal_eval(text)
    if len(text) >= 2 and (text[0], text[-1]) in (("[", "]"), ("(", ")")):
        inner = text[1:-1]
        items = _split_at_commas(inner) if inner.strip() else []
        if items and not items[-1].strip():
            items.pop()
        values = [parse_option_value(item) for item in items]
        return values if text[0] == "[" else tuple(values)
    return text


class OptionsAction(argparse.Action):
    """`--options KEY=VALUE ...`, also given several times: a dictionary of parsed values."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        options = dict(getattr(namespace, self.dest) or {})
        for text in values:
            key, equals, value = text.partition("=")
            if not equals or not key:
                parser.error(f"{option_string}: expected KEY=VALUE, got '{text}'")
            try:
                options[key] = parse_option_value(value)
            except ConfigError as error:
                parser.error(f"{option_string} {key}: {error}")
        setattr(namespace, self.dest, options)


def _split_at_commas(text: str) -> list[str]:
    """Split at the commas outside brackets and quotes."""
    parts, start, closing, quote = [], 0, [], None
    for position, character in enumerate(text):
        if quote:
            if character == quote:
                quote = None
        # An apostrophe inside a word ("don't") opens no string.
        elif character in "'\"" and not text[start:position].strip(" [("):
            quote = character
        elif character in "[(":
            closing.append({"[": "]", "(": ")"}[character])
        elif character in "])":
            if not closing or closing.pop() != character:
                raise ConfigError(f"unmatched '{character}' in the value {text!r}")
        elif character == "," and not closing:
            parts.append(text[start:position])
            start = position + 1
    if closing or quote:
        raise ConfigError(f"missing {quote or closing[-1]!r} in the value {text!r}")
    return [*parts, text[start:]]


# --- helpers -------------------------------------------------------------------------------------


def _checked_name(key: Any) -> str:
    """`key`, if it can be an attribute of a Config."""
    if not isinstance(key, str) or not key.isidentifier() or key.startswith("_"):
        raise ConfigError(f"Setting {key!r}: names are identifiers without a leading underscore.")
    if hasattr(Config, key):
        raise ConfigError(f"Setting '{key}' would hide Config.{key}; choose another name.")
    return key


def _plain(value: Any, key: str) -> Any:
    """A deep copy of `value` with Config for dictionaries; refuses what a file cannot hold."""
    if isinstance(value, Mapping):
        config = Config()
        for inner_key, inner in value.items():
            config._values[_checked_name(inner_key)] = _plain(inner, f"{key}.{inner_key}")
        return config
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item, key) for item in value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"Setting '{key}' must be a finite number, got {value}.")
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ConfigError(
        f"Setting '{key}' is of type {type(value).__name__}; settings are None, bool, int, float, "
        f"str, and lists, tuples and dictionaries of these."
    )


def _unwrapped(value: Any) -> Any:
    """The inverse of `_plain`."""
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, (list, tuple)):
        return type(value)(_unwrapped(item) for item in value)
    return value


def _converted(value: Any, old: Any, key: str) -> Any:
    """`value` in the type of the setting's present value `old`."""
    value = _plain(value, key)
    if old is None or (value is None and isinstance(old, str)):
        return value
    if isinstance(old, float) and type(value) is int:
        return float(value)
    if isinstance(old, (list, tuple)):
        items = value if isinstance(value, (list, tuple)) else [value]
        kinds = {type(item) for item in old}
        if len(kinds) == 1 and not kinds & {list, tuple, Config}:
            items = [_converted(item, old[0], key) for item in items]
        elif items and items[0] is None:
            raise ConfigError(_wrong_type(key, old, value))
        return type(old)(items)
    if type(value) is not type(old):
        raise ConfigError(_wrong_type(key, old, value))
    return value


def _wrong_type(key: str, old: Any, value: Any) -> str:
    remedy = " (quote a string that looks like a number)" if isinstance(old, str) else ""
    return (
        f"Setting '{key}' is of type {type(old).__name__}, for example {old!r}; "
        f"got {value!r} of type {type(value).__name__}{remedy}."
    )


def _nearest(key: str, config: Config) -> str:
    """A sentence with the known name nearest to `key`."""
    known: list[str] = []

    def collect(level: Config, prefix: str) -> None:
        for name, value in level.items():
            known.append(prefix + name)
            if isinstance(value, Config):
                collect(value, f"{prefix}{name}.")

    collect(config, "")
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    # "mask_weight" or "dice" mean something below a dictionary more often than a near spelling.
    leaves = {name.rpartition(".")[2]: name for name in reversed(known)}
    if not nearest and (leaf := difflib.get_close_matches(key, leaves, n=1, cutoff=0.6)):
        nearest = [leaves[leaf[0]]]
    if nearest:
        return f"Did you mean '{nearest[0]}'?"
    return f"Known settings: {', '.join(config) or '(none)'}."
