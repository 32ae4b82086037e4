"""Values of settings on a command line: `--options KEY=VALUE ...`."""

from __future__ import annotations

import argparse
import ast
import re
from typing import Any

from util.errors import shown
from util.setting_types import MOST_LEVELS, ConfigError


def parse_option_value(text: str) -> Any:
    """The value that a piece of a command line stands for.

    Int, float, bool (`True`, `true`), None (`None`, `none`), a comma list (`1,2` -> [1, 2]; a
    trailing comma makes a list of one), nested lists and tuples (`[a,b],[c]`, `(1,2)`), a quoted
    string taken literally, and any other text as the string that it is.

    Raises:
        ConfigError: brackets or quotes that do not match, too many brackets inside each other, or
            a faulty string in quotes.
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
    if re.fullmatch(r"[+-]?\d{1,400}", text):
        return int(text)
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        return float(text)
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        try:
            return ast.literal_eval(text)
        except (SyntaxError, ValueError) as error:
            raise ConfigError(f"not a string in quotes: {shown(text)} ({error})") from error
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
                parser.error(f"{option_string}: expected KEY=VALUE, got {shown(text)}")
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
            if len(closing) > MOST_LEVELS:
                raise ConfigError(f"more than {MOST_LEVELS} brackets inside each other")
        elif character in "])":
            if not closing or closing.pop() != character:
                raise ConfigError(f"unmatched '{character}' in the value {shown(text)}")
        elif character == "," and not closing:
            parts.append(text[start:position])
            start = position + 1
    if closing or quote:
        raise ConfigError(f"missing {quote or closing[-1]!r} in the value {shown(text)}")
    return [*parts, text[start:]]
