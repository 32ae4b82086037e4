"""Puts claims together until they are true of exactly one person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets.synthetic.captions.claims import (
    Claim,
    Combination,
    Crowd,
    Vocabulary,
    combinations_of,
)
from datasets.synthetic.captions.doings import DoingClaims
from datasets.synthetic.captions.grammar import garment, say
from datasets.synthetic.captions.looks import LookClaims
from datasets.synthetic.captions.places import PlaceClaims
from datasets.synthetic.captions.words import HELD_OUT_COMBINATIONS
from datasets.synthetic.people import ScenePerson, pick

_ATTEMPTS, _HELD_OUT_ATTEMPTS = 12, 40
_MAX_CLAIMS = 3  # of a sentence, without the noun


@dataclass(frozen=True)
class Caption:
    """A sentence about one person.

    Attributes:
        text: lower case, without a full stop.
        kind: one of `words.KINDS`.
        held_out: whether it mentions one of `words.HELD_OUT_COMBINATIONS`.
    """

    text: str
    kind: str
    held_out: bool


class Describer:
    """Finds captions for the people of one scene.

    Args:
        people: everybody in the image.
        width, height: of the image in pixels.
        difficulty: in [0, 1].  With 0, captions are short, use plain words and speak of clothes,
            actions or the place in the image; with 1, paraphrases are as frequent as plain words
            and every other caption is a relation or a mixture.
        kinds: restricts the captions to these of `words.KINDS`.
        training: True leaves out sentences with held-out combinations.
    """

    def __init__(
        self,
        people: Sequence[ScenePerson],
        width: int,
        height: int,
        difficulty: float,
        kinds: Sequence[str] | None = None,
        training: bool = True,
    ) -> None:
        self.difficulty = difficulty
        self.training = training
        self._kinds = _kind_weights(difficulty, kinds)
        self._num_people = len(people)
        crowd, self._vocabulary = Crowd(people, width, height), Vocabulary(difficulty)
        self._looks = LookClaims(crowd, self._vocabulary)
        self._doings = DoingClaims(crowd, self._vocabulary)
        self._places = PlaceClaims(crowd, self._vocabulary)
        # What a caption of each kind may claim; what is listed twice is claimed twice as often.
        looks, doings = self._looks, self._doings
        self._makers = {
            "appearance": (looks.clothes, looks.clothes, looks.head, looks.thing),
            "action": (doings.action, doings.action, doings.facing),
            "position": (self._places.place,),
            "mixed": (
                looks.clothes,
                looks.clothes,
                looks.head,
                looks.thing,
                doings.action,
                doings.facing,
                self._places.place,
            ),
        }

    def captions(self, target: int, count: int, generator: np.random.Generator) -> list[Caption]:
        """Up to `count` different captions that are true of person `target` only."""
        found: dict[str, Caption] = {}
        for _ in range(_ATTEMPTS + 2 * count):
            caption = self._attempt(target, generator)
            if caption is not None:
                found.setdefault(caption.text, caption)
                if len(found) == count:
                    break
        return list(found.values())

    def held_out_caption(self, target: int, generator: np.random.Generator) -> Caption | None:
        """A caption with a held-out combination, None where none was found."""
        for _ in range(_HELD_OUT_ATTEMPTS):
            caption = self._attempt(target, generator)
            if caption is not None and caption.held_out:
                return caption
        return None

    def _attempt(self, target: int, generator: np.random.Generator) -> Caption | None:
        draw = generator.random()
        for kind, weight in self._kinds:  # noqa: B007 - the last kind also takes rounding errors
            draw -= weight
            if draw < 0:
                break
        if kind == "relation":
            claims = self._relate(target, generator)
        else:
            claims = self._describe(target, kind, generator)
        if claims is None:
            return None
        held_out = not combinations_of(claims).isdisjoint(HELD_OUT_COMBINATIONS)
        if held_out and self.training:
            return None
        return Caption(say(claims, generator, self.difficulty, whole=True), kind, held_out)

    # --- by what is true of the person alone -----

    def _describe(
        self, target: int, kind: str, generator: np.random.Generator
    ) -> list[Claim] | None:
        """Claims that hold for the target only, or None where this draw found none."""
        pool, everything = self._makers[kind], self._makers["mixed"]
        noun = self._looks.noun(target, generator)
        claims: list[Claim] = []
        holds = noun.holds
        wanted = self._wanted_claims(kind, generator)
        for _ in range(3 * wanted + 2):
            done = len(claims) >= wanted
            if done and holds == 1 << target:
                break
            if len(claims) >= _MAX_CLAIMS:
                return None
            claim = pick(generator, everything if done else pool)(target, generator)
            if claim is None or not holds & claim.holds or not _goes_with(claim, claims):
                continue
            claims.append(claim)
            holds &= claim.holds
        if holds != 1 << target or len(claims) < wanted:
            return None
        closed = [claim for claim in claims if claim.closed]
        if closed:
            # "The second man from the left" might count men only: say it of a person, alone.
            return [self._looks.plain_noun(generator), *closed]
        return [noun, *claims]

    def _wanted_claims(self, kind: str, generator: np.random.Generator) -> int:
        if kind == "mixed":
            return 2 + int(generator.random() < 0.3)
        if kind == "appearance" and generator.random() < 0.35 * self.difficulty:
            return 2
        return 1

    # --- by somebody else -----

    def _relate(self, target: int, generator: np.random.Generator) -> list[Claim] | None:
        """Where the target is, seen from somebody who is described in turn."""
        if self._num_people < 2:
            return None
        others = [i for i in range(self._num_people) if i != target]
        anchor = pick(generator, others)
        noun = self._looks.noun(target, generator)
        options = [
            (holds, self._vocabulary.word(generator, phrases))
            for holds, phrases in self._places.relations(target, anchor)
            if holds & noun.holds == 1 << target
        ]
        if self._num_people >= 3 and generator.random() < 0.25:
            second = pick(generator, others)
            if second != anchor:
                claims = self._between(target, anchor, second, noun, generator)
                if claims is not None:
                    return claims
        if not options:
            return None
        holds, words = pick(generator, options)
        named = self._anchor(anchor, generator)
        if named is None:
            return None
        anchor_words, combinations = named
        return [noun, Claim("place", holds, f"{words} {anchor_words}", "after", combinations)]

    def _between(
        self, target: int, first: int, second: int, noun: Claim, generator: np.random.Generator
    ) -> list[Claim] | None:
        holds = self._places.between(target, first, second)
        if holds & noun.holds != 1 << target:
            return None
        names = [self._anchor(i, generator) for i in (first, second)]
        if names[0] is None or names[1] is None:
            return None
        phrases = ("between", "in between", "in the middle between")
        start = self._vocabulary.word(generator, phrases)
        words = f"{start} {names[0][0]} and {names[1][0]}"
        return [noun, Claim("place", holds, words, "after", names[0][1] + names[1][1])]

    def _anchor(
        self, anchor: int, generator: np.random.Generator
    ) -> tuple[str, tuple[Combination, ...]] | None:
        """Words for another person, and the combinations among them."""
        for _ in range(4):
            claims = self._describe(anchor, pick(generator, ("appearance", "action")), generator)
            if claims is None or len(claims) > 3 or any(claim.kind == "place" for claim in claims):
                continue
            words = say(claims, generator, self.difficulty, whole=False)
            return words, tuple(sorted(combinations_of(claims)))
        return None


def _kind_weights(difficulty: float, kinds: Sequence[str] | None) -> list[tuple[str, float]]:
    """(kind, how often); the frequencies sum to one."""
    weights = {
        "appearance": 0.5 - 0.15 * difficulty,
        "action": 0.2 - 0.03 * difficulty,
        "position": 0.3 - 0.15 * difficulty,
        "relation": 0.13 * difficulty,
        "mixed": 0.2 * difficulty,
    }
    if kinds is not None:
        weights = {kind: max(weights[kind], 0.05) for kind in kinds}
    total = sum(weights.values())
    return [(kind, weight / total) for kind, weight in weights.items()]


def _goes_with(claim: Claim, others: Sequence[Claim]) -> bool:
    """Whether a claim adds something of another kind, or a second, different garment."""
    same = sum(other.kind == claim.kind for other in others)
    if not same:
        return True
    return (
        claim.kind == "clothes"
        and same == 1
        and all(other.slot != "wear" or other.text != claim.text for other in others)
        and garment(claim) not in {garment(other) for other in others}
    )
