"""Claims about what people look like, wear and hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from datasets.synthetic import labels
from datasets.synthetic.captions.claims import Claim, Crowd, Vocabulary
from datasets.synthetic.captions.grammar import with_article
from datasets.synthetic.captions.words import (
    BOTTOM_WORDS,
    HAT_WORDS,
    NOUNS,
    PATTERN_WORDS,
    THING_WORDS,
    TOP_WORDS,
)
from datasets.synthetic.people import Item, ScenePerson, pick


def head_is_seen(person: ScenePerson) -> bool:
    """Whether enough of the head is visible to tell who it is and where it looks."""
    pixels = person.part_pixels
    return pixels[labels.HEAD] + pixels[labels.HAIR] >= 0.008 * person.scale**2


class LookClaims:
    """Nouns, clothes, heads and things in the hand.

    Methods take the index of the person who is meant and the source of their choices.

    Args:
        crowd: the people of the image.
        vocabulary: chooses the words.
    """

    def __init__(self, crowd: Crowd, vocabulary: Vocabulary) -> None:
        self._crowd, self._vocabulary = crowd, vocabulary

    def plain_noun(self, generator: np.random.Generator) -> Claim:
        """A noun for anybody."""
        words = self._vocabulary.word(generator, NOUNS["any"])
        return Claim("noun", self._crowd.everybody, words, "noun")

    def noun(self, target: int, generator: np.random.Generator) -> Claim:
        """A noun that fits the person; it tells men, women and children only by a seen head."""
        person = self._crowd.people[target]
        if not head_is_seen(person) or generator.random() < 0.5:
            return self.plain_noun(generator)
        kind = person.appearance.kind
        if person.appearance.is_child and generator.random() < 0.4:
            holds = self._crowd.where(lambda other: other.appearance.is_child)
            return Claim("noun", holds, self._vocabulary.word(generator, NOUNS["child"]), "noun")
        holds = self._crowd.where(lambda other: other.appearance.kind == kind)
        return Claim("noun", holds, self._vocabulary.word(generator, NOUNS[kind]), "noun")

    # --- clothes -----

    def clothes(self, target: int, generator: np.random.Generator) -> Claim | None:
        """Top or bottom; None where too little of it is visible."""
        person = self._crowd.people[target]
        if person.appearance.bottom is not None and generator.random() < 0.4:
            return self._bottom(person, person.appearance.bottom, generator)
        if person.part_pixels[labels.TRUNK] < max(10, 0.016 * person.scale**2):
            return None
        return self._top(person, generator)

    def _top(self, person: ScenePerson, generator: np.random.Generator) -> Claim:
        top = person.appearance.top
        family = "dress" if top.kind == "dress" else "top"
        if generator.random() < 0.25 and family == "top":
            return self._colour_only(top, generator)
        word, means = self._vocabulary.name(generator, TOP_WORDS, top.kind)
        if top.kind in ("sweater", "jacket") and person.pose.facing == "away":
            word, means = "top", TOP_WORDS["top"]  # from behind, both look the same
        pattern = None
        if top.pattern != "plain" and (top.kind != "dress") and generator.random() < 0.6:
            pattern = top.pattern
        with_colour = pattern is None or generator.random() < 0.6
        if pattern is None and word not in ("shirt", "top") and generator.random() < 0.12:
            with_colour = False
        holds = self._crowd.where(
            lambda other: (
                other.appearance.top.kind in means
                and (not with_colour or other.appearance.top.shows(top.colour))
                and (pattern is None or other.appearance.top.pattern == pattern)
            )
        )
        words = [word]
        if pattern is not None:
            words.insert(0, self._vocabulary.word(generator, PATTERN_WORDS[pattern]))
        if with_colour:
            words.insert(0, self._vocabulary.colour(generator, top.colour))
        return Claim(
            "clothes",
            holds,
            with_article(" ".join(words)),
            "wear",
            ((top.colour, family),) if with_colour else (),
            top.colour if with_colour else None,
        )

    def _colour_only(self, top: Item, generator: np.random.Generator) -> Claim:
        """Only the colour ("in red"): then nobody else may wear anything of it."""
        holds = self._crowd.where(
            lambda other: (
                other.appearance.top.shows(top.colour)
                or (
                    other.appearance.bottom is not None
                    and other.appearance.bottom.shows(top.colour)
                )
            )
        )
        words = self._vocabulary.colour(generator, top.colour)
        return Claim("clothes", holds, words, "wear", ((top.colour, "top"),), top.colour)

    def _bottom(
        self, person: ScenePerson, bottom: Item, generator: np.random.Generator
    ) -> Claim | None:
        parts = (labels.PELVIS, labels.LEFT_THIGH, labels.RIGHT_THIGH)
        if sum(person.part_pixels[part] for part in parts) < max(10, 0.014 * person.scale**2):
            return None
        word, means = self._vocabulary.name(generator, BOTTOM_WORDS, bottom.kind)
        with_colour = bottom.kind == "trousers" or generator.random() < 0.85
        if (bottom.kind, bottom.colour) == ("trousers", "blue"):
            word = self._vocabulary.word(generator, (word, "jeans"))
        holds = self._crowd.where(
            lambda other: (
                other.appearance.bottom is not None
                and other.appearance.bottom.kind in means
                and (not with_colour or other.appearance.bottom.shows(bottom.colour))
            )
        )
        words = word
        if with_colour:
            words = f"{self._vocabulary.colour(generator, bottom.colour)} {word}"
        combinations = ((bottom.colour, "bottom"),) if with_colour else ()
        return Claim("clothes", holds, with_article(words), "wear", combinations)

    # --- heads -----

    def head(self, target: int, generator: np.random.Generator) -> Claim | None:
        """Hat, hair, beard or glasses; None where none can be told."""
        person = self._crowd.people[target]
        look, pixels = person.appearance, person.part_pixels
        enough = max(6, 0.004 * person.scale**2)
        makers: list[Callable[[], Claim]] = []

        def add(holds: Callable[[ScenePerson], bool], phrases: tuple[str, ...], slot: str) -> None:
            makers.append(
                lambda: Claim(
                    "head",
                    self._crowd.where(holds),
                    self._vocabulary.word(generator, phrases),
                    slot,
                )
            )

        if look.hat is not None and pixels[labels.HAT] >= enough:
            makers += [lambda: self._hat(look.hat, generator)] * 2
        if pixels[labels.HAIR] >= enough and look.hair_colour is not None:
            makers.append(lambda: self._hair(person, generator))
        if pixels[labels.HEAD] >= enough and look.hat is None:
            if look.hair_colour is None:
                add(lambda other: other.appearance.hair_colour is None, ("bald",), "adjective")
            phrases = ("without a hat", "with no hat", "wearing no hat")
            add(lambda other: other.appearance.hat is None, phrases, "after")
        if person.keypoints[0, 2] == 2 and person.pose.facing == "viewer":
            if look.beard:
                phrases = ("with a beard", "who has a beard")
                add(lambda other: other.appearance.beard, phrases, "after")
                add(lambda other: other.appearance.beard, ("bearded",), "adjective")
            if look.glasses and person.scale > 80:
                phrases = ("with glasses", "wearing glasses", "who wears glasses")
                add(lambda other: other.appearance.glasses, phrases, "after")
        return pick(generator, makers)() if makers else None

    def _hat(self, hat: Item, generator: np.random.Generator) -> Claim:
        if generator.random() < 0.2:
            holds = self._crowd.where(lambda other: other.appearance.hat is not None)
            phrases = ("with a hat", "wearing a hat", "with a hat on", "who has a hat on")
            return Claim("head", holds, self._vocabulary.word(generator, phrases), "after")
        word, means = self._vocabulary.name(generator, HAT_WORDS, hat.kind)
        holds = self._crowd.where(
            lambda other: (
                other.appearance.hat is not None
                and other.appearance.hat.kind in means
                and other.appearance.hat.colour == hat.colour
            )
        )
        words = with_article(f"{self._vocabulary.colour(generator, hat.colour)} {word}")
        start = self._vocabulary.word(generator, ("with", "wearing", "who has", "who wears"))
        return Claim("head", holds, f"{start} {words}", "after", ((hat.colour, "hat"),))

    def _hair(self, person: ScenePerson, generator: np.random.Generator) -> Claim:
        look = person.appearance
        colour = look.hair_colour
        if generator.random() < 0.25:
            length = "long" if look.long_hair else "short"
            holds = self._crowd.where(
                lambda other: (
                    other.appearance.long_hair == look.long_hair
                    and other.appearance.hair_colour is not None
                )
            )
            phrases = (f"with {length} hair", f"who has {length} hair")
            return Claim("head", holds, self._vocabulary.word(generator, phrases), "after")
        holds = self._crowd.where(lambda other: other.appearance.hair_colour == colour)
        if generator.random() < 0.3:
            return Claim("head", holds, f"{colour}-haired", "adjective")
        phrases = (f"with {colour} hair", f"who has {colour} hair", f"whose hair is {colour}")
        return Claim("head", holds, self._vocabulary.word(generator, phrases), "after")

    # --- things -----

    def thing(self, target: int, generator: np.random.Generator) -> Claim | None:
        """What the person holds; None where it is hardly visible or there is none."""
        person = self._crowd.people[target]
        thing = person.appearance.thing
        if thing is None or person.part_pixels[labels.THING] < max(10, 0.008 * person.scale**2):
            return None
        word, means = self._vocabulary.name(generator, THING_WORDS, thing.kind)
        with_colour = generator.random() < 0.6
        holds = self._crowd.where(
            lambda other: (
                (
                    other.appearance.thing is not None
                    and other.appearance.thing.kind in means
                    and (not with_colour or other.appearance.thing.colour == thing.colour)
                )
                # Somebody who kicks a ball does not hold one, but might be taken for it.
                or (word == "ball" and other.pose.action == "kicking")
            )
        )
        words = word
        if with_colour:
            words = f"{self._vocabulary.colour(generator, thing.colour)} {word}"
        phrases = ("holding", "with", "carrying", "who holds", "who carries")
        start = self._vocabulary.word(generator, phrases)
        combinations = ((thing.colour, "thing"),) if with_colour else ()
        return Claim("thing", holds, f"{start} {with_article(words)}", "after", combinations)
