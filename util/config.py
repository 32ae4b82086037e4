"""Settings from Python files and the command line.

A configuration file is a Python file of plain values::

    _base_ = "uniphd.py"              # or a list of files, each relative to this one
    lr = 5e-5                         # replaces the base's value
    loss_weights = dict(mask=0.0)     # merges into the base's dictionary: its other keys stay

A file without `_base_` declares its settings: names, values and, as annotations, their types
(`util.setting_types`; without an annotation the value's own).  It may also declare

- `_aliases_`: other names of settings, each with the setting or with (setting, {value: its value}),
- `_retired_`: settings of earlier versions, each with the only value it ever had,
- `_conditions_`: what settings demand of each other, each with an expression (`Config.check`).

For derived files, `--options`, stored configurations and assigned attributes alike: only declared
settings can be changed, only to values of their types; an unknown name is an error that names the
nearest known one.  Dictionaries merge key by key; None empties one that takes any key.  Lists and
tuples are the same: lists.
"""

from __future__ import annotations

import difflib
import logging
import os
import runpy
import types
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import addict
from yapf.yapflib.yapf_api import FormatCode

from util.errors import MissingFileError, shown
from util.files import written_whole
from util.logging import LOGGER_NAME
from util.option_values import OptionsAction, parse_option_value
from util.setting_types import ConfigError, SettingType, Table, type_like

__all__ = ["DECLARATIONS", "Config", "ConfigError", "OptionsAction", "parse_option_value"]

logger = logging.getLogger(LOGGER_NAME)

# The file that declares every setting of the project.
DECLARATIONS = Path(__file__).resolve().parents[1] / "config" / "uniphd.py"


@dataclass(frozen=True)
class Declaration(Table):
    """The type of a whole configuration; the attributes are explained at the top of this file."""

    aliases: Mapping[str, str | tuple[str, Mapping[Any, Any]]] = field(default_factory=dict)
    retired: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[str, str] = field(default_factory=dict)

    def translated(self, name: str, value: Any) -> tuple[str, Any]:
        """The setting, and its value, that another name stands for."""
        if name not in self.aliases:
            return name, value
        alias = self.aliases[name]
        if isinstance(alias, str):
            return alias, value
        setting, values = alias
        if type(value) not in (int, str) or value not in values:
            known = " or ".join(repr(known) for known in values)
            raise ConfigError(f"Setting '{name}' must be {known}; got {shown(value)}.")
        return setting, values[value]


class Config(addict.Dict):
    """Settings with attribute access: `cfg.lr`, `cfg.loss_weights.mask`, `**cfg.match_costs`.

    Nested dictionaries are `Config` objects themselves.  Every way of changing one obeys the rules
    at the top of this file.

    Args:
        values: the settings, copied.
        table: their types; by default those of `values`, or what its values suggest.
        prefix: name of this dictionary and a dot, where it is inside another one.

    Raises:
        ConfigError: a value of another type, or a name that cannot be an attribute.
    """

    def __init__(
        self, values: Mapping[str, Any] | None = None, table: Table | None = None, prefix: str = ""
    ) -> None:
        super().__init__()
        values = {} if values is None else values
        if isinstance(values, Config):
            table, prefix = table or values._table, prefix or values._prefix
        object.__setattr__(self, "_table", type_like(values) if table is None else table)
        object.__setattr__(self, "_prefix", prefix)
        for name, value in values.items():
            self[name] = value

    # --- reading -----------------------------------------------------------------------------

    @classmethod
    def fromfile(cls, path: str | os.PathLike, base: str | os.PathLike | None = None) -> Config:
        """Read a Python configuration file and the files its `_base_` names.

        Args:
            path: of the file.
            base: what a file without `_base_` is laid over, such as the one that `dump` writes;
                by default it declares its settings itself.

        Raises:
            MissingFileError: the file, or a base of it, does not exist.
            ConfigError: the file does not run, names itself as its base, or breaks the rules.
        """
        return cls._read(Path(path).resolve(), None if base is None else Path(base).resolve(), ())

    @classmethod
    def from_stored(cls, values: Any, source: str | os.PathLike) -> Config:
        """The settings that a checkpoint holds, laid over those that are declared today.

        What it lacks takes today's value, which is logged; other names and retired settings are
        understood.

        Args:
            values: what `to_dict` gave when it was stored, perhaps by an earlier version.
            source: the checkpoint, for errors.

        Raises:
            ConfigError: they are not settings, not of this project, or do not go together.
        """
        config = cls.fromfile(DECLARATIONS)
        if not isinstance(values, Mapping):
            raise ConfigError(f"{source}: expected settings by name; got {shown(values)}.")
        try:
            config.merge_from_dict(values)
            config.check()
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from error
        named = {config._table.translated(name, value)[0] for name, value in values.items()}
        if lacking := [name for name in config if name not in named]:
            logger.info("%s: took today's values of %s", source, ", ".join(lacking))
        return config

    @classmethod
    def _read(cls, path: Path, default_base: Path | None, derived: tuple[Path, ...]) -> Config:
        origin = f" (a _base_ of {derived[-1]})" if derived else ""
        if path.is_dir():
            raise ConfigError(
                f"Configuration file {path}{origin} is a folder; name a Python file of settings, "
                f"such as config/{DECLARATIONS.name}."
            )
        if not path.is_file():
            raise MissingFileError(f"Configuration file {path}{origin} does not exist.")
        if path in derived:
            chain = " -> ".join(file.name for file in (*derived, path))
            raise ConfigError(f"Configuration files name each other as _base_: {chain}")
        try:
            compile(path.read_bytes(), str(path), "exec")  # runpy would look into an archive
            namespace = runpy.run_path(str(path))
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"Configuration file {path} cannot be read: {type(error).__name__}: {error}. "
                "Expected Python with a value for every setting that is to change."
            ) from error

        bases = namespace.get("_base_", [])
        bases = [bases] if isinstance(bases, str) else bases
        if not isinstance(bases, (list, tuple)) or not all(isinstance(b, str) for b in bases):
            raise ConfigError(
                f"{path}: _base_ must be a file name or a list of them; got {shown(bases)}."
            )
        if not bases and default_base not in (None, path):
            bases = [str(default_base)]
        public = {name: value for name, value in namespace.items() if not name.startswith("_")}
        imported = {n for n, v in public.items() if isinstance(v, types.ModuleType | type)}
        settings = {name: value for name, value in public.items() if name not in imported}
        read = [
            cls._read((path.parent / base).resolve(), default_base, (*derived, path))
            for base in bases
        ]
        try:
            if not read:
                return cls(settings, _declaration(namespace, settings))
            if annotated := _annotations(namespace):
                raise ConfigError(f"only a file without _base_ declares types: {list(annotated)}")
            if functions := [n for n, v in settings.items() if isinstance(v, types.FunctionType)]:
                raise ConfigError(
                    f"'{functions[0]}' is a function, and settings are plain values: begin the "
                    "names of whatever else the file defines with '_'."
                )
            config = read[0]
            for other in read[1:]:
                joined = {**config._table.types, **other._table.types}
                config = cls(config, replace(config._table, types=joined))
                config.merge_from_dict(other)
            # A class or module under the name of a setting is a slip.
            slips = {name: public[name] for name in imported if name in config}
            config.merge_from_dict({**settings, **slips})
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        return config

    def __missing__(self, name: str) -> Any:
        raise KeyError(self._unknown(name))

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def to_dict(self) -> dict[str, Any]:
        """A copy made of plain values, nested dictionaries included."""
        return deepcopy(super().to_dict())

    def check(self) -> None:
        """Check the declared conditions between settings.

        Raises:
            ConfigError: one does not hold.
        """
        for demand, expression in self._table.conditions.items():
            code = compile(expression, "_conditions_", "eval")
            if not eval(code, {}, self):
                names = [name for name in code.co_names if name in self]
                values = ", ".join(f"{name} = {shown(self[name])}" for name in names)
                raise ConfigError(f"{demand}; got {values}.")

    # --- changing ----------------------------------------------------------------------------

    def merge_from_dict(self, options: Mapping[str, Any]) -> None:
        """Change settings; a dotted key (`loss_weights.mask`) reaches into a dictionary.

        Nothing is changed if any of the options is refused.

        Raises:
            ConfigError: an unknown key (the message names the nearest), or a wrong value.
        """
        merged = Config(self)
        for name, value in options.items():
            merged[name] = value
        dict.update(self, merged)

    def __setitem__(self, name: str, value: Any) -> None:
        # Whatever changes an addict.Dict passes through here.
        if isinstance(self._table, Declaration):
            name, value = self._table.translated(name, value)
            retired = self._table.retired
            if name in retired and type(value) is type(retired[name]) and value == retired[name]:
                return
        first, _, rest = str(name).partition(".")
        full_name = f"{self._prefix}{name}"
        setting_type = self._table.type_of(first)
        if setting_type is None:
            raise ConfigError(self._unknown(name))
        if not first.isidentifier() or first.startswith("_") or hasattr(Config, first):
            raise ConfigError(f"{shown(full_name)} cannot be the name of a setting.")
        if isinstance(setting_type, Table):
            changes = {rest: value} if rest else value
            before = self.get(first)
            if changes is None and setting_type.takes_new:
                changes, before = {}, None
            if not isinstance(changes, Mapping):
                raise ConfigError(
                    f"Setting '{full_name}' is a dictionary with the keys "
                    f"{', '.join(setting_type.types) or '(any)'}; got {shown(value)}. Change one "
                    f"key with {full_name}.KEY=VALUE."
                )
            value = Config(before, setting_type, f"{self._prefix}{first}.")
            for inner_name, inner_value in changes.items():
                value[inner_name] = inner_value
        elif rest:
            raise ConfigError(f"Unknown setting '{full_name}': '{first}' is no dictionary.")
        else:
            value = setting_type.accepted(value, full_name)
        super().__setitem__(first, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Config:
        return Config(self)

    def __reduce__(self) -> tuple:
        return Config, (self.to_dict(), self._table, self._prefix)

    # --- writing -----------------------------------------------------------------------------

    def dump(self, path: str | os.PathLike) -> None:
        """Write a configuration file that `fromfile` reads back to an equal `Config`."""
        with written_whole(path) as temporary:
            temporary.write_text(self.dumps(), encoding="utf-8")

    def dumps(self) -> str:
        """The text of the file that `dump` writes."""
        lines = ['"""All settings of a run."""', ""]
        lines += [f"{name} = {value!r}" for name, value in self.to_dict().items()]
        style = {"based_on_style": "pep8", "column_limit": 100}
        return FormatCode("\n".join(lines) + "\n", style_config=style)[0]

    def _unknown(self, name: str) -> str:
        """The message about an unknown name, with the known one nearest to it."""
        known: list[str] = []

        def collect(level: Config) -> None:
            for key, value in level.items():
                known.append(f"{level._prefix}{key}")
                if isinstance(value, Config):
                    collect(value)

        collect(self)
        full_name = f"{self._prefix}{name}"
        nearest = difflib.get_close_matches(full_name, known, n=1, cutoff=0.6)
        # "mask_weight" or "dice" mean something below a dictionary more often than a near spelling.
        leaves = {name.rpartition(".")[2]: name for name in reversed(known)}
        if not nearest and (leaf := difflib.get_close_matches(full_name, leaves, n=1, cutoff=0.6)):
            nearest = [leaves[leaf[0]]]
        remedy = f"Did you mean '{nearest[0]}'?" if nearest else f"Known: {', '.join(self)}."
        return f"Unknown setting {shown(full_name)}. {remedy}"


def _annotations(namespace: Mapping[str, Any]) -> Mapping[str, Any]:
    """The annotations of a file that ran."""
    if "__annotate__" in namespace:  # Python 3.14 evaluates them when they are asked for
        return namespace["__annotate__"](1)
    return namespace.get("__annotations__", {})


def _declaration(namespace: Mapping[str, Any], settings: Mapping[str, Any]) -> Declaration:
    """The types of the settings that a file without `_base_` declares."""
    annotations = _annotations(namespace)
    declared = dict(type_like(settings).types)
    for name, setting_type in annotations.items():
        if name not in settings or not isinstance(setting_type, SettingType):
            raise ConfigError(
                f"'{name}' must be declared with a type of util.setting_types and with a value; "
                f"got the annotation {setting_type!r}."
            )
        if isinstance(setting_type, Table) and isinstance(settings[name], Mapping):
            setting_type = setting_type.declared_with(settings[name])
        declared[name] = setting_type
    return Declaration(
        declared,
        aliases=namespace.get("_aliases_", {}),
        retired=namespace.get("_retired_", {}),
        conditions=namespace.get("_conditions_", {}),
    )
