"""Which entries are measured for a module, and the floors of all from those that were counted."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks import figures
from benchmarks.turns import Entry, Measurement

ABOUT_A_VARIANT = ("environment", "needs", "on_request", "uncounted")


def load(what: str) -> ModuleType:
    """The module of a `--what`."""
    return importlib.import_module(f"benchmarks.{what}")


def entries(
    what: str,
    common: Mapping[str, Any],
    repository: Path,
    variants: Sequence[str] = (),
    older: tuple[str, Path] | None = None,
) -> list[Entry]:
    """The variants of a module, each after the older commit's where it has it.

    Args:
        what: name of the module.
        common: options that replace the module's defaults; a variant's own win.
        repository: what is measured.
        variants: some of them; by default all that this machine can do.
        older: label and checkout of another commit.
    """
    module = load(what)
    found = []
    for name in variants or module.VARIANTS:
        variant = module.VARIANTS[name]
        device = str(common["device"]).partition(":")[0]
        if variant.get("needs", device) != device:
            continue
        if variant.get("on_request") and name not in variants:
            continue
        own = {key: value for key, value in variant.items() if key not in ABOUT_A_VARIANT}
        settings = {
            "variant": name,
            "module": f"benchmarks.{what}",
            "options": {"amp": "off", **module.DEFAULTS, **common, **own},
            "environment": variant.get("environment", {}),
        }
        if older is not None and name in module.OLDER:
            label, folder = older
            found.append(Entry(name=f"{label}: {name}", checkout=folder, is_older=True, **settings))
        is_counted = not variant.get("uncounted", False)
        found.append(Entry(name=name, checkout=repository, is_counted=is_counted, **settings))
    return found


def _work(what: str, entry: Entry) -> tuple[Any, ...]:
    """What decides how much work an entry is; those that agree share a floor."""
    keys = getattr(load(what), "FLOOR_BY", ("amp",))
    return tuple(str(entry.options.get(key)) for key in keys)


def counted(what: str, chosen: Sequence[Entry]) -> list[Entry]:
    """One entry for every amount of work, to count its floor on."""
    if getattr(load(what), "FLOOR", None) != "counted":
        return []
    by_work: dict[tuple[Any, ...], Entry] = {}
    for entry in chosen:
        if entry.is_counted and not entry.is_older:
            by_work.setdefault(_work(what, entry), entry)
    return list(by_work.values())


def floors(what: str, measurements: Sequence[Measurement]) -> list[float | None]:
    """Floor of every measurement in seconds per unit; None where there is none."""
    floor = getattr(load(what), "FLOOR", None)
    if floor is None:
        return [None] * len(measurements)
    if floor == "counted":
        by_work = {
            _work(what, measurement.entry): measurement.floor["seconds"]
            for measurement in measurements
            if measurement.floor is not None
        }
        return [by_work.get(_work(what, measurement.entry)) for measurement in measurements]
    found = [m for m in measurements if m.entry.variant == floor and m.rounds]
    ours = [m for m in found if not m.entry.is_older] or found
    return [figures.median(ours[0]) if ours else None] * len(measurements)
