"""What can be said of a person: claims, and what all who make them know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from datasets.synthetic.captions.words import COLOUR_WORDS
from datasets.synthetic.people import ScenePerson

Combination = tuple[str, str]


class Claim(NamedTuple):
    """Something said of a person.

    Attributes:
        kind: "noun", "clothes", "head", "thing", "action", "facing" or "place"; a sentence makes
            at most one claim of a kind, two for clothes.
        holds: bit i is set where it holds, or might be said, of person i.
        text: the words.
        slot: where they go: "noun", "wear" (after "in"), "after" (after the noun), "adjective".
        combinations: (colour, family) that the words put together.
        top_colour: colour of the top that the words mention.
        doing: action or arms that the words mention.
        closed: whether a gendered noun would change the meaning ("second from the left").
    """

    kind: str
    holds: int
    text: str
    slot: str
    combinations: tuple[Combination, ...] = ()
    top_colour: str | None = None
    doing: str | None = None
    closed: bool = False


def combinations_of(claims: Iterable[Claim]) -> set[Combination]:
    """All that a sentence of these claims puts together; see `words.HELD_OUT_COMBINATIONS`."""
    claims = list(claims)
    tops = {claim.top_colour for claim in claims if claim.top_colour}
    doing = {claim.doing for claim in claims if claim.doing}
    within = {pair for claim in claims for pair in claim.combinations}
    return within | {(colour, action) for colour in tops for action in doing}


class Crowd:
    """The people of one image, as claims see them.

    Args:
        people: everybody in the image.
        width, height: of the image in pixels.

    Attributes:
        everybody: as bits.
        order: indices from left to right.
    """

    def __init__(self, people: Sequence[ScenePerson], width: int, height: int) -> None:
        self.people = people
        self.width, self.height = width, height
        self.everybody = (1 << len(people)) - 1
        self.order = sorted(range(len(people)), key=lambda i: people[i].centre_x)

    def where(self, holds: Callable[[ScenePerson], bool]) -> int:
        """The people for whom something holds, as bits."""
        bits = 0
        for i, person in enumerate(self.people):
            if holds(person):
                bits |= 1 << i
        return bits


class Vocabulary:
    """Chooses words.

    Args:
        difficulty: in [0, 1]; 0 takes the plain words only, 1 paraphrases as often.
    """

    def __init__(self, difficulty: float) -> None:
        self.difficulty = difficulty

    def word(self, generator: np.random.Generator, words: Sequence[str]) -> str:
        """The plain word, or, the more often the harder, one of the others."""
        if len(words) > 1 and generator.random() < 0.5 * self.difficulty:
            return words[1 + int(generator.integers(len(words) - 1))]
        return words[0]

    def colour(self, generator: np.random.Generator, colour: str) -> str:
        """The colour's name, or now and then another word for it."""
        words = COLOUR_WORDS.get(colour, (colour,))
        if len(words) > 1 and generator.random() < 0.15 * self.difficulty:
            return words[1 + int(generator.integers(len(words) - 1))]
        return colour

    def name(
        self, generator: np.random.Generator, names: Mapping[str, tuple[str, ...]], kind: str
    ) -> tuple[str, tuple[str, ...]]:
        """A word for a kind of thing, and all kinds that it may mean.

        Args:
            generator: source of the choice.
            names: word -> kinds that it may mean.
            kind: one of these kinds.
        """
        fitting = [word for word, kinds in names.items() if kind in kinds]
        exact = kind if kind in fitting else fitting[0]
        word = self.word(generator, (exact, *(w for w in fitting if w != exact)))
        return word, names[word]
