"""Claims about where people are, in the image and to each other."""

from __future__ import annotations

import numpy as np

from datasets.synthetic.captions.claims import Claim, Crowd, Vocabulary
from datasets.synthetic.captions.words import ORDINALS
from datasets.synthetic.people import ScenePerson, pick


class PlaceClaims:
    """Places in the image, and relations between people.

    Args:
        crowd: the people of the image.
        vocabulary: chooses the words.
    """

    def __init__(self, crowd: Crowd, vocabulary: Vocabulary) -> None:
        self._crowd, self._vocabulary = crowd, vocabulary
        self._centres = [crowd.people[i].centre_x for i in crowd.order]
        self._gap = 0.06 * crowd.width

    # --- in the image -----

    def place(self, target: int, generator: np.random.Generator) -> Claim | None:
        """Where person `target` is; None where it stands too close to others to tell."""
        crowd = self._crowd
        if len(crowd.people) == 1:
            phrases = ("in the picture", "in the image", "in the photo", "in this scene")
            words = self._vocabulary.word(generator, phrases)
            return Claim("place", crowd.everybody, words, "after")
        options = [
            *self._at_the_ends(target),
            *self._in_the_row(target),
            *self._in_depth(target),
        ]
        if not options:
            return None
        if generator.random() < 1 - self._vocabulary.difficulty:
            options = options[:5]
        return pick(generator, options)

    def _stands_apart(self, rank: int) -> bool:
        """Whether the person `rank` from the left is clearly apart from both neighbours."""
        return all(
            not (low >= 0 and low + 1 < len(self._centres))
            or self._centres[low + 1] - self._centres[low] > self._gap
            for low in (rank - 1, rank)
        )

    def _at_the_ends(self, target: int) -> list[Claim]:
        """On the far left, on the left side, and the same on the right."""
        crowd = self._crowd
        rank = crowd.order.index(target)
        ends = {0: "left", len(crowd.people) - 1: "right"}
        if rank not in ends or not self._stands_apart(rank):
            return []
        side = ends[rank]
        only = 1 << target
        claims = [
            Claim("place", only, f"on the far {side}", "after"),
            Claim("place", only, f"{side}most", "adjective"),
            Claim("place", only, f"farthest to the {side}", "after"),
        ]

        def share(other: ScenePerson) -> float:
            """How far from that side of the image, of its width."""
            from_left = other.centre_x / crowd.width
            return from_left if side == "left" else 1 - from_left

        if share(crowd.people[target]) < 0.45:
            holds = crowd.where(lambda other: share(other) < 0.53)
            phrases = (
                f"on the {side}",
                f"on the {side}",
                f"on the {side} side",
                f"at the {side}",
                f"on the {side} half of the image",
            )
            claims += [Claim("place", holds, phrase, "after") for phrase in phrases]
        return claims

    def _in_the_row(self, target: int) -> list[Claim]:
        """Second from the left, in the middle."""
        crowd, gap = self._crowd, self._gap
        count = len(crowd.people)
        rank = crowd.order.index(target)
        if count < 3 or not self._stands_apart(rank):
            return []
        steps = [self._centres[i + 1] - self._centres[i] for i in range(count - 1)]
        from_left, from_right = rank, count - 1 - rank
        phrases = []
        if min(steps[: rank + 1], default=0) > gap and 0 < from_left < len(ORDINALS):
            phrases.append(f"{ORDINALS[from_left]} from the left")
        if min(steps[max(0, rank - 1) :], default=0) > gap and 0 < from_right < len(ORDINALS):
            phrases.append(f"{ORDINALS[from_right]} from the right")
        centred = abs(crowd.people[target].centre_x / crowd.width - 0.5) < 0.2
        if count % 2 == 1 and rank == count // 2 and centred:
            phrases += ["in the middle", "in the center", "in the very middle"]
        return [Claim("place", 1 << target, phrase, "after", closed=True) for phrase in phrases]

    def _in_depth(self, target: int) -> list[Claim]:
        """In front, in the back."""
        people = self._crowd.people
        depths = sorted((other.foot[1], i) for i, other in enumerate(people))
        step = 0.05 * self._crowd.height
        phrases: list[str] = []
        if depths[-1][1] == target and depths[-1][0] - depths[-2][0] > step:
            phrases += [
                "in front",
                "at the front",
                "in the foreground",
                "closest to the camera",
                "nearest to us",
            ]
        if depths[0][1] == target and depths[1][0] - depths[0][0] > step:
            phrases += [
                "in the back",
                "at the back",
                "in the background",
                "farthest from the camera",
                "farthest away",
            ]
        return [Claim("place", 1 << target, phrase, "after", closed=True) for phrase in phrases]

    # --- to each other -----

    def relations(self, target: int, anchor: int) -> list[tuple[int, tuple[str, ...]]]:
        """Relations of person `target` to person `anchor`, as the image shows them.

        Returns:
            (bits of all for whom the relation might be said, phrases) of each.
        """
        return [
            *self._beside(target, anchor),
            *self._near(target, anchor),
            *self._before_or_behind(target, anchor),
        ]

    def _others(self, anchor: int) -> int:
        return self._crowd.everybody & ~(1 << anchor)

    def _beside(self, target: int, anchor: int) -> list[tuple[int, tuple[str, ...]]]:
        me, them = self._crowd.people[target], self._crowd.people[anchor]
        gap = self._gap
        for side, sign in (("left", -1), ("right", 1)):
            if sign * (me.centre_x - them.centre_x) > gap:
                holds = self._others(anchor) & self._crowd.where(
                    lambda other, sign=sign: sign * (other.centre_x - them.centre_x) > -gap
                )
                phrases = (
                    f"to the {side} of",
                    f"{side} of",
                    f"on the {side} of",
                    f"on the {side} side of",
                )
                return [(holds, phrases)]
        return []

    def _near(self, target: int, anchor: int) -> list[tuple[int, tuple[str, ...]]]:
        me, them = self._crowd.people[target], self._crowd.people[anchor]

        def near(other: ScenePerson, share: float) -> bool:
            reach = share * 0.5 * (other.scale + them.scale)
            return abs(other.centre_x - them.centre_x) < reach

        if not near(me, 0.6):
            return []
        holds = self._others(anchor) & self._crowd.where(lambda other: near(other, 0.85))
        return [(holds, ("next to", "beside", "close to", "near", "side by side with"))]

    def _before_or_behind(self, target: int, anchor: int) -> list[tuple[int, tuple[str, ...]]]:
        me, them = self._crowd.people[target], self._crowd.people[anchor]

        def overlap(other: ScenePerson) -> float:
            """Of the columns of both boxes, as a share of the narrower one."""
            start = max(other.box[0], them.box[0])
            end = min(other.box[0] + other.box[2], them.box[0] + them.box[2])
            return (end - start) / min(other.box[2], them.box[2])

        step = 0.04 * self._crowd.height
        if overlap(me) <= 0.25:
            return []
        if me.foot[1] < them.foot[1] - step:
            holds = self._others(anchor) & self._crowd.where(
                lambda other: overlap(other) > 0.0 and other.foot[1] < them.foot[1]
            )
            return [(holds, ("behind", "partly hidden behind", "covered by"))]
        if me.foot[1] > them.foot[1] + step:
            holds = self._others(anchor) & self._crowd.where(
                lambda other: overlap(other) > 0.0 and other.foot[1] > them.foot[1]
            )
            return [(holds, ("in front of",))]
        return []

    def between(self, target: int, first: int, second: int) -> int:
        """Bits of all who might be said to be between two others; 0 where `target` is not."""
        people = self._crowd.people
        gap = 0.05 * self._crowd.width
        low, high = sorted((people[first].centre_x, people[second].centre_x))
        if not low + gap < people[target].centre_x < high - gap:
            return 0
        holds = self._crowd.where(lambda other: low - gap < other.centre_x < high + gap)
        return holds & ~((1 << first) | (1 << second))
