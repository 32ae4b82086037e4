"""Sentences that point out exactly one person of a synthetic image.

A sentence is built of claims.  A claim knows for which people of the image it holds, as a set of
bits, so the claims of a sentence are true of exactly one person where the intersection of their
sets has one bit left.  "Holds" is read generously for everybody else and strictly for the person
who is meant: a person who could be taken for the meant one makes the sentence ambiguous.

Left and right are always the viewer's.  A mirrored image with "left" and "right" exchanged
in the caption is therefore as true as before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from datasets.synthetic import painter as drawing
from datasets.synthetic.people import BOYS, GIRLS, MEN, TOPS, WOMEN, ScenePerson, pick

KINDS = ("appearance", "action", "position", "relation", "mixed")
"""What a caption mainly speaks of; "mixed" joins two or three of the others."""

# --- combinations that training never speaks of --------------------------------------------------

HELD_OUT_COMBINATIONS: frozenset[tuple[str, str]] = frozenset(
    (
        # colour and clothing or thing
        ("yellow", "top"),
        ("purple", "top"),
        ("red", "bottom"),
        ("green", "bottom"),
        ("white", "bottom"),
        ("blue", "hat"),
        ("orange", "hat"),
        ("black", "dress"),
        ("pink", "dress"),
        ("red", "thing"),
        ("brown", "thing"),
        # colour of the top, and what its wearer does
        ("red", "waving"),
        ("red", "sitting"),
        ("blue", "walking"),
        ("blue", "raised"),
        ("green", "sitting"),
        ("green", "kicking"),
        ("white", "standing"),
        ("white", "pointing"),
        ("black", "waving"),
        ("black", "running"),
        ("pink", "walking"),
        ("orange", "standing"),
        ("orange", "bending"),
        ("brown", "crouching"),
        ("brown", "jumping"),
    )
)
"""(colour, what has it) that no caption of the training split mentions together.

The images show them in both splits, and every word is learnt from other combinations: whether a
model understands the held-out ones tells if it has learnt words or sentences.
"""


@dataclass(frozen=True)
class Caption:
    """A sentence about one person.

    Attributes:
        text: lower case, without a full stop.
        kind: one of KINDS.
        held_out: whether it mentions one of HELD_OUT_COMBINATIONS.
    """

    text: str
    kind: str
    held_out: bool


# --- words ---------------------------------------------------------------------------------------
# The first of several words is the plain one; the others are the more frequent the harder the
# captions are to be.

_COLOUR_WORDS = {
    "red": ("red", "crimson", "scarlet"),
    "purple": ("purple", "violet"),
    "black": ("black", "jet-black"),
    "white": ("white", "snow-white"),
    "pink": ("pink", "rose-coloured"),
    "green": ("green", "grass-green", "emerald"),
    "blue": ("blue", "royal-blue"),
    "yellow": ("yellow", "lemon-yellow"),
    "orange": ("orange", "bright-orange", "tangerine"),
    "brown": ("brown", "chocolate-brown"),
}
_PATTERN_WORDS = {
    "striped": ("striped", "stripy", "stripey"),
    "dotted": ("dotted", "spotted", "polka-dot"),
}
_NOUNS = {
    "any": ("person", "one", "figure", "individual", "human", "character"),
    MEN: ("man", "guy", "gentleman", "fellow", "bloke"),
    WOMEN: ("woman", "lady"),
    BOYS: ("boy", "little boy", "lad"),
    GIRLS: ("girl", "little girl"),
    "child": ("child", "kid", "youngster"),
}
# Word -> what it may mean.
_TOP_WORDS = {
    "t-shirt": ("t-shirt",),
    "tee": ("t-shirt",),
    "short-sleeved shirt": ("t-shirt",),
    "sweater": ("sweater",),
    "jumper": ("sweater",),
    "pullover": ("sweater",),
    "shirt": ("t-shirt", "sweater"),
    "jacket": ("jacket",),
    "coat": ("jacket",),
    "top": TOPS,
    "dress": ("dress",),
    "gown": ("dress",),
    "frock": ("dress",),
}
_BOTTOM_WORDS = {
    "trousers": ("trousers",),
    "pants": ("trousers",),
    "slacks": ("trousers",),
    "shorts": ("shorts",),
    "short pants": ("shorts",),
    "skirt": ("skirt",),
}
_HAT_WORDS = {
    "cap": ("cap",),
    "baseball cap": ("cap",),
    "beanie": ("beanie",),
    "woolly hat": ("beanie",),
    "bobble hat": ("beanie",),
    "sun hat": ("brimmed hat",),
    "wide-brimmed hat": ("brimmed hat",),
    "hat": ("cap", "beanie", "brimmed hat"),
}
_THING_WORDS = {
    "balloon": ("balloon",),
    "umbrella": ("umbrella",),
    "parasol": ("umbrella",),
    "brolly": ("umbrella",),
    "bag": ("bag",),
    "shopping bag": ("bag",),
    "handbag": ("bag",),
    "ball": ("ball",),
    "flag": ("flag",),
    "banner": ("flag",),
}
_PLURALS = ("trousers", "pants", "slacks", "shorts", "jeans")

# What people do: phrases that follow a noun ("the man ..."), each also after "who is" where it
# starts with a word in -ing, and single words that may stand before the noun.
_ACTION_PHRASES = {
    "standing": ("standing", "standing up", "standing upright", "standing still"),
    "walking": ("walking", "strolling", "taking a walk", "going for a walk", "out walking"),
    "running": ("running", "jogging", "sprinting", "in a hurry", "rushing"),
    "sitting": ("sitting", "seated", "sitting down", "having a seat", "sitting on a box"),
    "kicking": ("kicking a ball", "kicking", "playing football", "playing soccer"),
    "bending": ("bending over", "bending down", "bending forward", "stooping"),
    "crouching": ("crouching", "squatting", "crouching down", "down on the heels"),
    "jumping": ("jumping", "leaping", "jumping up", "up in the air"),
}
_ARM_PHRASES = {
    "waving": (
        "waving",
        "waving hello",
        "waving a hand",
        "waving at us",
        "greeting us",
        "saying hi",
    ),
    "raised": (
        "raising both arms",
        "with both arms up",
        "with raised arms",
        "with hands in the air",
        "throwing both arms up",
        "cheering",
    ),
    "hips": ("with hands on hips", "with both hands on the hips", "holding both hips"),
    "pointing": ("pointing", "pointing at something", "pointing sideways", "showing the way"),
}
_ADJECTIVES = {
    "standing": ("standing",),
    "walking": ("walking", "strolling"),
    "running": ("running", "jogging"),
    "sitting": ("sitting", "seated"),
    "kicking": ("kicking",),
    "bending": ("bending", "stooping"),
    "crouching": ("crouching", "squatting"),
    "jumping": ("jumping", "leaping"),
    "waving": ("waving",),
    "raised": ("cheering",),
    "pointing": ("pointing",),
}
_FACING_PHRASES = {
    "viewer": (
        "facing the camera",
        "looking at the camera",
        "looking at us",
        "facing us",
        "facing forward",
    ),
    "away": (
        "facing away",
        "seen from behind",
        "turned away",
        "looking away from us",
        "whose face cannot be seen",
        "with the back to the camera",
    ),
    "left": ("facing left", "looking to the left", "turned to the left", "seen from the side"),
    "right": ("facing right", "looking to the right", "turned to the right", "seen from the side"),
}
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
_PREFIXES = (
    "find",
    "show me",
    "point out",
    "where is",
    "look for",
    "select",
    "mark",
    "it is",
    "please find",
    "can you see",
    "locate",
    "segment",
    "i mean",
)


@dataclass(frozen=True)
class Claim:
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
    combinations: tuple[tuple[str, str], ...] = ()
    top_colour: str | None = None
    doing: str | None = None
    closed: bool = False


def _article(words: str) -> str:
    if words.endswith(_PLURALS):
        return words
    vowel = words[0] in "aeiou" and not words.startswith("one")
    return f"{'an' if vowel else 'a'} {words}"


class Describer:
    """Finds captions for the people of one scene.

    Args:
        people: everybody in the image.
        width, height: of the image in pixels.
        difficulty: in [0, 1].  With 0, captions are short, use plain words and speak of clothes,
            actions or the place in the image; with 1, paraphrases are as frequent as plain words
            and every other caption is a relation or a mixture.
        kinds: restricts the captions to these KINDS.
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
        self.people = people
        self.width, self.height = width, height
        self.difficulty = difficulty
        self.training = training
        d = difficulty
        weights = {
            "appearance": 0.5 - 0.15 * d,
            "action": 0.2 - 0.03 * d,
            "position": 0.3 - 0.15 * d,
            "relation": 0.13 * d,
            "mixed": 0.2 * d,
        }
        if kinds is not None:
            weights = {kind: max(weights[kind], 0.05) for kind in kinds}
        total = sum(weights.values())
        self._kinds = [(kind, weight / total) for kind, weight in weights.items()]
        self.everybody = (1 << len(people)) - 1
        self.order = sorted(range(len(people)), key=lambda i: people[i].centre_x)

    # --- sentences -----

    def captions(
        self, target: int, count: int, generator: np.random.Generator, attempts: int = 12
    ) -> list[Caption]:
        """Up to `count` different captions that are true of person `target` only."""
        found: dict[str, Caption] = {}
        for _ in range(attempts + 2 * count):
            caption = self._attempt(target, generator)
            if caption is not None:
                found.setdefault(caption.text, caption)
                if len(found) == count:
                    break
        return list(found.values())

    def held_out_caption(
        self, target: int, generator: np.random.Generator, attempts: int = 40
    ) -> Caption | None:
        """A caption with a held-out combination, None where none was found."""
        for _ in range(attempts):
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
            claims = self._relation(target, generator)
        else:
            claims = self._describe(target, kind, generator)
        if claims is None:
            return None
        held_out = self._is_held_out(claims)
        if held_out and self.training:
            return None
        return Caption(self._say(claims, generator, whole=True), kind, held_out)

    def _is_held_out(self, claims: Sequence[Claim]) -> bool:
        combinations = {pair for claim in claims for pair in claim.combinations}
        tops = {claim.top_colour for claim in claims if claim.top_colour}
        doing = {claim.doing for claim in claims if claim.doing}
        combinations |= {(colour, action) for colour in tops for action in doing}
        return not combinations.isdisjoint(HELD_OUT_COMBINATIONS)

    def _describe(
        self, target: int, kind: str, generator: np.random.Generator
    ) -> list[Claim] | None:
        """Claims that hold for the target only, or None where this draw found none."""
        makers = {
            "appearance": (self._clothes, self._clothes, self._head, self._thing),
            "action": (self._action, self._action, self._facing),
            "position": (self._place,),
        }
        everything = (
            self._clothes,
            self._clothes,
            self._head,
            self._thing,
            self._action,
            self._facing,
            self._place,
        )
        pool = makers.get(kind, everything)
        noun = self._noun(target, generator)
        claims: list[Claim] = []
        holds = noun.holds
        wanted = 1
        if kind == "mixed":
            wanted = 2 + int(generator.random() < 0.3)
        elif kind == "appearance" and generator.random() < 0.35 * self.difficulty:
            wanted = 2
        for _ in range(3 * wanted + 2):
            done = len(claims) >= wanted
            if done and holds == 1 << target:
                break
            if len(claims) >= 3:
                return None
            maker = pick(generator, everything if done else pool)
            claim = maker(target, generator)
            if claim is None or not holds & claim.holds:
                continue
            same = sum(other.kind == claim.kind for other in claims)
            if same and not (
                claim.kind == "clothes"
                and same == 1
                and all(o.slot != "wear" or o.text != claim.text for o in claims)
                and _garment(claim) not in {_garment(o) for o in claims}
            ):
                continue
            claims.append(claim)
            holds &= claim.holds
        if holds != 1 << target or len(claims) < wanted:
            return None
        closed = [claim for claim in claims if claim.closed]
        if closed:
            # "The second man from the left" might count men only: say it of a person, alone.
            return [self._plain_noun(generator), *closed]
        return [noun, *claims]

    def _say(self, claims: Sequence[Claim], generator: np.random.Generator, whole: bool) -> str:
        """Claims -> words.

        Args:
            claims: the noun first.
            generator: source of the choices.
            whole: True for a sentence of its own, False for a part of one ("... behind ...").
        """
        noun = claims[0].text
        before, worn, after = [], [], []
        for claim in claims[1:]:
            {"adjective": before, "wear": worn, "after": after}[claim.slot].append(claim.text)
        hard = generator.random() < 0.5 * self.difficulty
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
        for position in range(len(after)):
            first = after[position].split(" ", 1)[0]
            last = position == len(after) - 1
            if hard and last and first.endswith("ing") and generator.random() < 0.4:
                after[position] = f"who is {after[position]}"
        determiner = "the"
        if hard and whole and generator.random() < 0.3:
            determiner = pick(generator, ("a", "that", ""))
        words = " ".join((*before, noun, *after))
        if determiner == "a":
            first, *rest = words.split(" ")
            words = " ".join((_article(first), *rest))
        elif determiner:
            words = f"{determiner} {words}"
        if whole and hard and generator.random() < 0.2:
            words = f"{pick(generator, _PREFIXES)} {words}"
        return words

    # --- nouns -----

    def _plain_noun(self, generator: np.random.Generator) -> Claim:
        return Claim("noun", self.everybody, self._word(generator, _NOUNS["any"]), "noun")

    def _noun(self, target: int, generator: np.random.Generator) -> Claim:
        person = self.people[target]
        pixels = person.part_pixels
        seen = pixels[drawing.HEAD] + pixels[drawing.HAIR] >= 0.008 * person.scale**2
        if not seen or generator.random() < 0.5:
            return self._plain_noun(generator)
        kind = person.appearance.kind
        if person.appearance.is_child and generator.random() < 0.4:
            holds = self._where(lambda other: other.appearance.is_child)
            return Claim("noun", holds, self._word(generator, _NOUNS["child"]), "noun")
        holds = self._where(lambda other: other.appearance.kind == kind)
        return Claim("noun", holds, self._word(generator, _NOUNS[kind]), "noun")

    # --- looks -----

    def _clothes(self, target: int, generator: np.random.Generator) -> Claim | None:
        person = self.people[target]
        bottom = person.appearance.bottom
        if bottom is not None and generator.random() < 0.4:
            return self._bottom(target, generator)
        pixels, look = person.part_pixels, person.appearance
        if pixels[drawing.TRUNK] < max(10, 0.016 * person.scale**2):
            return None
        top = look.top
        family = "dress" if top.kind == "dress" else "top"
        if generator.random() < 0.25 and family == "top":
            # Only the colour: then nothing else of that colour may be worn by somebody else.
            holds = self._where(
                lambda other: (
                    other.appearance.top.shows(top.colour)
                    or (
                        other.appearance.bottom is not None
                        and other.appearance.bottom.shows(top.colour)
                    )
                )
            )
            return Claim(
                "clothes",
                holds,
                self._colour(generator, top.colour),
                "wear",
                ((top.colour, family),),
                top.colour,
            )
        word, means = self._name(generator, _TOP_WORDS, top.kind)
        if top.kind in ("sweater", "jacket") and person.pose.facing == "away":
            word, means = "top", _TOP_WORDS["top"]  # from behind, both look the same
        pattern = None
        if top.pattern != "plain" and (top.kind != "dress") and generator.random() < 0.6:
            pattern = top.pattern
        with_colour = pattern is None or generator.random() < 0.6
        if pattern is None and word not in ("shirt", "top") and generator.random() < 0.12:
            with_colour = False
        holds = self._where(
            lambda other: (
                other.appearance.top.kind in means
                and (not with_colour or other.appearance.top.shows(top.colour))
                and (pattern is None or other.appearance.top.pattern == pattern)
            )
        )
        words = [word]
        if pattern is not None:
            words.insert(0, self._word(generator, _PATTERN_WORDS[pattern]))
        if with_colour:
            words.insert(0, self._colour(generator, top.colour))
        return Claim(
            "clothes",
            holds,
            _article(" ".join(words)),
            "wear",
            ((top.colour, family),) if with_colour else (),
            top.colour if with_colour else None,
        )

    def _bottom(self, target: int, generator: np.random.Generator) -> Claim | None:
        person = self.people[target]
        bottom, pixels = person.appearance.bottom, person.part_pixels
        seen = pixels[drawing.PELVIS] + pixels[drawing.LEFT_THIGH] + pixels[drawing.RIGHT_THIGH]
        if bottom is None or seen < max(10, 0.014 * person.scale**2):
            return None
        word, means = self._name(generator, _BOTTOM_WORDS, bottom.kind)
        with_colour = bottom.kind == "trousers" or generator.random() < 0.85
        if (bottom.kind, bottom.colour) == ("trousers", "blue"):
            word = self._word(generator, (word, "jeans"))
        holds = self._where(
            lambda other: (
                other.appearance.bottom is not None
                and other.appearance.bottom.kind in means
                and (not with_colour or other.appearance.bottom.shows(bottom.colour))
            )
        )
        words = f"{self._colour(generator, bottom.colour)} {word}" if with_colour else word
        combinations = ((bottom.colour, "bottom"),) if with_colour else ()
        return Claim("clothes", holds, _article(words), "wear", combinations)

    def _head(self, target: int, generator: np.random.Generator) -> Claim | None:
        """Hats, hair, beards and glasses."""
        person = self.people[target]
        look, pixels = person.appearance, person.part_pixels
        enough = max(6, 0.004 * person.scale**2)
        options: list[Callable[[], Claim]] = []
        if look.hat is not None and pixels[drawing.HAT] >= enough:
            options += [lambda: self._hat(target, generator)] * 2
        if pixels[drawing.HAIR] >= enough and look.hair_colour is not None:
            options.append(lambda: self._hair(target, generator))
        if pixels[drawing.HEAD] >= enough and look.hat is None:
            if look.hair_colour is None:
                bald = self._where(lambda other: other.appearance.hair_colour is None)
                options.append(lambda: Claim("head", bald, "bald", "adjective"))
            hatless = self._where(lambda other: other.appearance.hat is None)
            phrases = ("without a hat", "with no hat", "wearing no hat")
            options.append(lambda: Claim("head", hatless, self._word(generator, phrases), "after"))
        if person.keypoints[0, 2] == 2 and person.pose.facing == "viewer":
            if look.beard:
                beards = self._where(lambda other: other.appearance.beard)
                phrases_beard = ("with a beard", "who has a beard")
                options.append(
                    lambda: Claim("head", beards, self._word(generator, phrases_beard), "after")
                )
                options.append(lambda: Claim("head", beards, "bearded", "adjective"))
            if look.glasses and person.scale > 80:
                glasses = self._where(lambda other: other.appearance.glasses)
                phrases_glasses = ("with glasses", "wearing glasses", "who wears glasses")
                options.append(
                    lambda: Claim("head", glasses, self._word(generator, phrases_glasses), "after")
                )
        return pick(generator, options)() if options else None

    def _hat(self, target: int, generator: np.random.Generator) -> Claim:
        hat = self.people[target].appearance.hat
        if generator.random() < 0.2:
            hats = self._where(lambda other: other.appearance.hat is not None)
            phrases = ("with a hat", "wearing a hat", "with a hat on", "who has a hat on")
            return Claim("head", hats, self._word(generator, phrases), "after")
        word, means = self._name(generator, _HAT_WORDS, hat.kind)
        holds = self._where(
            lambda other: (
                other.appearance.hat is not None
                and other.appearance.hat.kind in means
                and other.appearance.hat.colour == hat.colour
            )
        )
        words = _article(f"{self._colour(generator, hat.colour)} {word}")
        start = self._word(generator, ("with", "wearing", "who has", "who wears"))
        return Claim("head", holds, f"{start} {words}", "after", ((hat.colour, "hat"),))

    def _hair(self, target: int, generator: np.random.Generator) -> Claim:
        look = self.people[target].appearance
        length = "long" if look.long_hair else "short"
        colour = look.hair_colour
        if generator.random() < 0.25:
            holds = self._where(
                lambda other: (
                    other.appearance.long_hair == look.long_hair
                    and other.appearance.hair_colour is not None
                )
            )
            phrases = (f"with {length} hair", f"who has {length} hair")
            return Claim("head", holds, self._word(generator, phrases), "after")
        holds = self._where(lambda other: other.appearance.hair_colour == colour)
        if generator.random() < 0.3:
            return Claim("head", holds, f"{colour}-haired", "adjective")
        phrases = (f"with {colour} hair", f"who has {colour} hair", f"whose hair is {colour}")
        return Claim("head", holds, self._word(generator, phrases), "after")

    def _thing(self, target: int, generator: np.random.Generator) -> Claim | None:
        person = self.people[target]
        thing = person.appearance.thing
        if thing is None or person.part_pixels[drawing.THING] < max(10, 0.008 * person.scale**2):
            return None
        word, means = self._name(generator, _THING_WORDS, thing.kind)
        with_colour = generator.random() < 0.6
        holds = self._where(
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
        words = f"{self._colour(generator, thing.colour)} {word}" if with_colour else word
        start = self._word(generator, ("holding", "with", "carrying", "who holds", "who carries"))
        combinations = ((thing.colour, "thing"),) if with_colour else ()
        return Claim("thing", holds, f"{start} {_article(words)}", "after", combinations)

    # --- what people do -----

    def _action(self, target: int, generator: np.random.Generator) -> Claim | None:
        person = self.people[target]
        pose, visible = person.pose, person.keypoints[:, 2] == 2
        options = []
        if person.visible_fraction > 0.7 and (person.keypoints[11:, 2] > 0).sum() >= 5:
            options.append(pose.action)
        wrists = visible[9:11]
        both = bool(wrists.all())
        active = bool(wrists[0 if pose.active_side == 1 else 1])
        if (pose.arms in ("raised", "hips") and both) or (
            pose.arms in ("waving", "pointing") and active
        ):
            options += [pose.arms] * 2
        if not options:
            return None
        doing = pick(generator, options)
        holds = self._where(lambda other: doing in (other.pose.action, other.pose.arms))
        sideways = doing in ("walking", "running") and pose.facing in ("left", "right")
        if sideways and generator.random() < 0.5:
            holds = self._where(
                lambda other: other.pose.action == doing and other.pose.facing == pose.facing
            )
            words = f"{doing} {self._word(generator, ('to the', 'towards the'))} {pose.facing}"
            return Claim("action", holds, words, "after", doing=doing)
        if doing == "pointing" and generator.random() < 0.5:
            side = self._pointing_side(person)
            holds = self._where(
                lambda other: other.pose.arms == "pointing" and self._pointing_side(other) == side
            )
            words = f"pointing {self._word(generator, ('to the', 'towards the'))} {side}"
            return Claim("action", holds, words, "after", doing=doing)
        if doing in _ADJECTIVES and generator.random() < 0.3:
            adjective = self._word(generator, _ADJECTIVES[doing])
            return Claim("action", holds, adjective, "adjective", doing=doing)
        phrases = _ACTION_PHRASES.get(doing) or _ARM_PHRASES[doing]
        words = self._word(generator, phrases)
        if words == "playing football" or words == "playing soccer":
            # Somebody with a ball in the hand might be meant.
            holds |= self._where(
                lambda other: (
                    other.appearance.thing is not None and other.appearance.thing.kind == "ball"
                )
            )
        return Claim("action", holds, words, "after", doing=doing)

    @staticmethod
    def _pointing_side(person: ScenePerson) -> str:
        """The side of the image that a pointing arm points to."""
        faces_viewer = person.pose.facing == "viewer"
        return "right" if (person.pose.active_side == 1) == faces_viewer else "left"

    def _facing(self, target: int, generator: np.random.Generator) -> Claim | None:
        person = self.people[target]
        facing = person.pose.facing
        pixels = person.part_pixels
        if pixels[drawing.HEAD] + pixels[drawing.HAIR] < 0.008 * person.scale**2:
            return None
        words = self._word(generator, _FACING_PHRASES[facing])
        sides = ("left", "right") if words == "seen from the side" else (facing,)
        holds = self._where(lambda other: other.pose.facing in sides)
        return Claim("facing", holds, words, "after")

    # --- places -----

    def _place(self, target: int, generator: np.random.Generator) -> Claim | None:
        count = len(self.people)
        if count == 1:
            phrases = ("in the picture", "in the image", "in the photo", "in this scene")
            return Claim("place", self.everybody, self._word(generator, phrases), "after")
        person = self.people[target]
        rank = self.order.index(target)
        centres = [self.people[i].centre_x for i in self.order]
        gap = 0.06 * self.width
        options: list[tuple[str, str, bool, int]] = []  # words, slot, closed, holds

        def clear(low: int, high: int) -> bool:
            """Whether people low and high, from the left, stand clearly apart."""
            return not (low >= 0 and high < count) or centres[high] - centres[low] > gap

        only = 1 << target
        apart = clear(rank - 1, rank) and clear(rank, rank + 1)
        ends = {0: "left", count - 1: "right"}
        if rank in ends and apart:
            side = ends[rank]
            options += [
                (f"on the far {side}", "after", False, only),
                (f"{side}most", "adjective", False, only),
                (f"farthest to the {side}", "after", False, only),
            ]

            def share(other: ScenePerson, side: str = side) -> float:
                """How far from that side of the image, of its width."""
                from_left = other.centre_x / self.width
                return from_left if side == "left" else 1 - from_left

            if share(person) < 0.45:
                holds = self._where(lambda other: share(other) < 0.53)
                options += [
                    (f"on the {side}", "after", False, holds),
                    (f"on the {side}", "after", False, holds),
                    (f"on the {side} side", "after", False, holds),
                    (f"at the {side}", "after", False, holds),
                    (f"on the {side} half of the image", "after", False, holds),
                ]
        steps = [centres[i + 1] - centres[i] for i in range(count - 1)]
        if count >= 3 and apart:
            from_left, from_right = rank, count - 1 - rank
            if min(steps[: rank + 1], default=0) > gap and from_left > 0:
                options.append((f"{_ORDINALS[from_left]} from the left", "after", True, only))
            if min(steps[max(0, rank - 1) :], default=0) > gap and from_right > 0:
                options.append((f"{_ORDINALS[from_right]} from the right", "after", True, only))
            if (
                count % 2 == 1
                and rank == count // 2
                and abs(person.centre_x / self.width - 0.5) < 0.2
            ):
                for phrase in ("in the middle", "in the center", "in the very middle"):
                    options.append((phrase, "after", True, only))
        depths = sorted((other.foot[1], i) for i, other in enumerate(self.people))
        step = 0.05 * self.height
        if depths[-1][1] == target and depths[-1][0] - depths[-2][0] > step:
            for phrase in (
                "in front",
                "at the front",
                "in the foreground",
                "closest to the camera",
                "nearest to us",
            ):
                options.append((phrase, "after", True, only))
        if depths[0][1] == target and depths[1][0] - depths[0][0] > step:
            for phrase in (
                "in the back",
                "at the back",
                "in the background",
                "farthest from the camera",
                "farthest away",
            ):
                options.append((phrase, "after", True, only))
        if not options:
            return None
        if generator.random() < 1 - self.difficulty:
            options = options[:5]
        words, slot, closed, holds = pick(generator, options)
        return Claim("place", holds, words, slot, closed=closed)

    # --- relations -----

    def _relation(self, target: int, generator: np.random.Generator) -> list[Claim] | None:
        """Where the target is, seen from somebody who is described in turn."""
        count = len(self.people)
        if count < 2:
            return None
        others = [i for i in range(count) if i != target]
        anchor = pick(generator, others)
        noun = self._noun(target, generator)
        options = [
            (holds, self._word(generator, phrases))
            for holds, phrases in self._relations_to(target, anchor)
            if holds & noun.holds == 1 << target
        ]
        if count >= 3 and generator.random() < 0.25:
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

    def _anchor(
        self, anchor: int, generator: np.random.Generator
    ) -> tuple[str, tuple[tuple[str, str], ...]] | None:
        """Words for another person, and the held-out combinations among them."""
        for _ in range(4):
            claims = self._describe(anchor, pick(generator, ("appearance", "action")), generator)
            if claims is None or len(claims) > 3 or any(claim.kind == "place" for claim in claims):
                continue
            combinations = {pair for claim in claims for pair in claim.combinations}
            tops = [claim.top_colour for claim in claims if claim.top_colour]
            doing = [claim.doing for claim in claims if claim.doing]
            combinations |= {(colour, action) for colour in tops for action in doing}
            return self._say(claims, generator, whole=False), tuple(sorted(combinations))
        return None

    def _relations_to(self, target: int, anchor: int) -> list[tuple[int, tuple[str, ...]]]:
        """Relations of the target to the anchor: for whom else they might hold, and the words."""
        me, them = self.people[target], self.people[anchor]
        relations: list[tuple[int, tuple[str, ...]]] = []
        gap = 0.06 * self.width
        not_them = self.everybody & ~(1 << anchor)
        for side, sign in (("left", -1), ("right", 1)):
            if sign * (me.centre_x - them.centre_x) > gap:
                holds = not_them & self._where(
                    lambda other, sign=sign: sign * (other.centre_x - them.centre_x) > -gap
                )
                phrases = (
                    f"to the {side} of",
                    f"{side} of",
                    f"on the {side} of",
                    f"on the {side} side of",
                )
                relations.append((holds, phrases))

        def near(other: ScenePerson, share: float) -> bool:
            reach = share * 0.5 * (other.scale + them.scale)
            return abs(other.centre_x - them.centre_x) < reach

        if near(me, 0.6):
            holds = not_them & self._where(lambda other: near(other, 0.85))
            relations.append(
                (holds, ("next to", "beside", "close to", "near", "side by side with"))
            )

        def overlap(other: ScenePerson) -> float:
            start = max(other.box[0], them.box[0])
            end = min(other.box[0] + other.box[2], them.box[0] + them.box[2])
            return (end - start) / min(other.box[2], them.box[2])

        step = 0.04 * self.height
        if overlap(me) > 0.25 and me.foot[1] < them.foot[1] - step:
            holds = not_them & self._where(
                lambda other: overlap(other) > 0.0 and other.foot[1] < them.foot[1]
            )
            relations.append((holds, ("behind", "partly hidden behind", "covered by")))
        if overlap(me) > 0.25 and me.foot[1] > them.foot[1] + step:
            holds = not_them & self._where(
                lambda other: overlap(other) > 0.0 and other.foot[1] > them.foot[1]
            )
            relations.append((holds, ("in front of",)))
        return relations

    def _between(
        self,
        target: int,
        first: int,
        second: int,
        noun: Claim,
        generator: np.random.Generator,
    ) -> list[Claim] | None:
        gap = 0.05 * self.width
        low, high = sorted((self.people[first].centre_x, self.people[second].centre_x))
        me = self.people[target].centre_x
        if not low + gap < me < high - gap:
            return None
        ends = (1 << first) | (1 << second)
        holds = self._where(lambda other: low - gap < other.centre_x < high + gap) & ~ends
        if holds & noun.holds != 1 << target:
            return None
        names = [self._anchor(i, generator) for i in (first, second)]
        if names[0] is None or names[1] is None:
            return None
        start = self._word(generator, ("between", "in between", "in the middle between"))
        words = f"{start} {names[0][0]} and {names[1][0]}"
        return [noun, Claim("place", holds, words, "after", names[0][1] + names[1][1])]

    # --- helpers -----

    def _where(self, holds: Callable[[ScenePerson], bool]) -> int:
        """The people for whom something holds, as bits."""
        return sum(1 << i for i, person in enumerate(self.people) if holds(person))

    def _word(self, generator: np.random.Generator, words: Sequence[str]) -> str:
        """The plain word, or, the more often the harder, one of the others."""
        if len(words) > 1 and generator.random() < 0.5 * self.difficulty:
            return words[1 + int(generator.integers(len(words) - 1))]
        return words[0]

    def _colour(self, generator: np.random.Generator, colour: str) -> str:
        words = _COLOUR_WORDS.get(colour, (colour,))
        if len(words) > 1 and generator.random() < 0.15 * self.difficulty:
            return words[1 + int(generator.integers(len(words) - 1))]
        return colour

    def _name(
        self, generator: np.random.Generator, names: dict[str, tuple[str, ...]], kind: str
    ) -> tuple[str, tuple[str, ...]]:
        """A word for a kind of thing, and all kinds that it may mean."""
        fitting = [word for word, kinds in names.items() if kind in kinds]
        exact = kind if kind in fitting else fitting[0]
        word = self._word(generator, (exact, *(w for w in fitting if w != exact)))
        return word, names[word]


def _garment(claim: Claim) -> str:
    """Which part of the body a claim about clothes speaks of."""
    if claim.text.endswith((*_PLURALS, "skirt")):
        return "bottom"
    return "top"
