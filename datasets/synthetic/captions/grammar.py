"""From claims to words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datasets.synthetic.captions.claims import Claim
from datasets.synthetic.captions.words import PLURALS, PREFIXES
from datasets.synthetic.people import pick


def with_article(words: str) -> str:
    """The words with "a" or "an" before them, none before a plural."""
    if words.endswith(PLURALS):
        return words
    vowel = words[0] in "aeiou" and not words.startswith("one")
    return f"{'an' if vowel else 'a'} {words}"


def garment(claim: Claim) -> str:
    """Which part of the body a claim about clothes speaks of: "top" or "bottom"."""
    return "bottom" if claim.text.endswith((*PLURALS, "skirt")) else "top"


def say(
    claims: Sequence[Claim], generator: np.random.Generator, difficulty: float, *, whole: bool
) -> str:
    """Claims -> words.

    Args:
        claims: the noun first.
        generator: source of the choices.
        difficulty: in [0, 1]; 0 takes the plain forms only.
        whole: True for a sentence of its own, False for a part of one ("... behind ...").
    """
    before = [claim.text for claim in claims[1:] if claim.slot == "adjective"]
    worn = [claim.text for claim in claims[1:] if claim.slot == "wear"]
    after = [claim.text for claim in claims[1:] if claim.slot == "after"]
    hard = generator.random() < 0.5 * difficulty
    if worn:
        listed = " and ".join(worn)
        alone = len(claims) == 2 and claims[1].holds & (claims[1].holds - 1) == 0
        if whole and hard and alone and listed.count(" ") > 1 and generator.random() < 0.3:
            # "red t-shirt": the clothes stand for the person.
            return listed.removeprefix("a ").removeprefix("an ")
        if hard:
            start = pick(generator, ("wearing", "dressed in", "who is wearing", "with", "in"))
        else:
            start = "wearing" if generator.random() < 0.3 else "in"
        after.insert(0, f"{start} {listed}")
    if before and after and after[0].startswith("who is"):
        after[0] = after[0].removeprefix("who is ")
    if hard and after and after[-1].split(" ", 1)[0].endswith("ing") and generator.random() < 0.4:
        after[-1] = f"who is {after[-1]}"
    determiner = "the"
    if hard and whole and generator.random() < 0.3:
        determiner = pick(generator, ("a", "that", ""))
    words = " ".join((*before, claims[0].text, *after))
    if determiner == "a":
        first, *rest = words.split(" ")
        words = " ".join((with_article(first), *rest))
    elif determiner:
        words = f"{determiner} {words}"
    if whole and hard and generator.random() < 0.2:
        words = f"{pick(generator, PREFIXES)} {words}"
    return words
