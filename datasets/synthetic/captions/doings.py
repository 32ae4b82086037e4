"""Claims about what people do and where they face."""

from __future__ import annotations

import numpy as np

from datasets.synthetic.captions.claims import Claim, Crowd, Vocabulary
from datasets.synthetic.captions.looks import head_is_seen
from datasets.synthetic.captions.words import (
    ACTION_PHRASES,
    ADJECTIVES,
    ARM_PHRASES,
    FACING_PHRASES,
)
from datasets.synthetic.people import ScenePerson, pick


class DoingClaims:
    """Actions, arms and directions.

    Methods take the index of the person who is meant and the source of their choices.

    Args:
        crowd: the people of the image.
        vocabulary: chooses the words.
    """

    def __init__(self, crowd: Crowd, vocabulary: Vocabulary) -> None:
        self._crowd, self._vocabulary = crowd, vocabulary

    def action(self, target: int, generator: np.random.Generator) -> Claim | None:
        """What the person does; None where too little can be seen to tell."""
        person = self._crowd.people[target]
        pose = person.pose
        options = _visible_doings(person)
        if not options:
            return None
        doing = pick(generator, options)
        sideways = doing in ("walking", "running") and pose.facing in ("left", "right")
        if sideways and generator.random() < 0.5:
            holds = self._crowd.where(
                lambda other: other.pose.action == doing and other.pose.facing == pose.facing
            )
            towards = self._vocabulary.word(generator, ("to the", "towards the"))
            return Claim("action", holds, f"{doing} {towards} {pose.facing}", "after", doing=doing)
        if doing == "pointing" and generator.random() < 0.5:
            side = _pointing_side(person)
            holds = self._crowd.where(
                lambda other: other.pose.arms == "pointing" and _pointing_side(other) == side
            )
            towards = self._vocabulary.word(generator, ("to the", "towards the"))
            return Claim("action", holds, f"pointing {towards} {side}", "after", doing=doing)
        holds = self._crowd.where(lambda other: doing in (other.pose.action, other.pose.arms))
        if doing in ADJECTIVES and generator.random() < 0.3:
            adjective = self._vocabulary.word(generator, ADJECTIVES[doing])
            return Claim("action", holds, adjective, "adjective", doing=doing)
        words = self._vocabulary.word(generator, ACTION_PHRASES.get(doing) or ARM_PHRASES[doing])
        if words in ("playing football", "playing soccer"):
            # Somebody with a ball in the hand might be meant.
            holds |= self._crowd.where(
                lambda other: (
                    other.appearance.thing is not None and other.appearance.thing.kind == "ball"
                )
            )
        return Claim("action", holds, words, "after", doing=doing)

    def facing(self, target: int, generator: np.random.Generator) -> Claim | None:
        """Where the person looks; None where hardly any of the head is visible."""
        person = self._crowd.people[target]
        facing = person.pose.facing
        if not head_is_seen(person):
            return None
        words = self._vocabulary.word(generator, FACING_PHRASES[facing])
        sides = ("left", "right") if words == "seen from the side" else (facing,)
        holds = self._crowd.where(lambda other: other.pose.facing in sides)
        return Claim("facing", holds, words, "after")


def _visible_doings(person: ScenePerson) -> list[str]:
    """Actions and arms that can be told from what is visible, twice what is to be likelier."""
    pose, visibility = person.pose, person.keypoints[:, 2].tolist()
    options = []
    if person.visible_fraction > 0.7 and sum(seen > 0 for seen in visibility[11:]) >= 5:
        options.append(pose.action)
    wrists = [seen == 2 for seen in visibility[9:11]]
    active = wrists[0 if pose.active_side == 1 else 1]
    if (pose.arms in ("raised", "hips") and all(wrists)) or (
        pose.arms in ("waving", "pointing") and active
    ):
        options += [pose.arms] * 2
    return options


def _pointing_side(person: ScenePerson) -> str:
    """The side of the image that a pointing arm points to."""
    faces_viewer = person.pose.facing == "viewer"
    return "right" if (person.pose.active_side == 1) == faces_viewer else "left"
