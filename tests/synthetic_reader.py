"""An independent reader of synthetic captions.

Reads the words, not the generator's claims, and decides with rules of its own who is meant.
"""

from __future__ import annotations

import re

from datasets.synthetic.people import COLOURS, ScenePerson

_SYNONYMS = {
    "crimson": "red",
    "scarlet": "red",
    "violet": "purple",
    "jet-black": "black",
    "snow-white": "white",
    "rose-coloured": "pink",
    "grass-green": "green",
    "emerald": "green",
    "royal-blue": "blue",
    "lemon-yellow": "yellow",
    "bright-orange": "orange",
    "tangerine": "orange",
    "chocolate-brown": "brown",
}
_COLOUR = "|".join(sorted([*COLOURS, *_SYNONYMS], key=len, reverse=True))


def _colour(word: str | None) -> str | None:
    return _SYNONYMS.get(word, word)


_TOPS = {
    "t-shirt": "t-shirt",
    "tee": "t-shirt",
    "short-sleeved shirt": "t-shirt",
    "sweater": "sweater",
    "jumper": "sweater",
    "pullover": "sweater",
    "shirt": "t-shirt, sweater",
    "jacket": "jacket",
    "coat": "jacket",
    "top": "t-shirt, sweater, jacket",
    "dress": "dress",
    "gown": "dress",
    "frock": "dress",
}
_BOTTOMS = {
    "trousers": "trousers",
    "pants": "trousers",
    "slacks": "trousers",
    "jeans": "trousers",
    "short pants": "shorts",
    "shorts": "shorts",
    "skirt": "skirt",
}
_HATS = {
    "baseball cap": "cap",
    "cap": "cap",
    "beanie": "beanie",
    "woolly hat": "beanie",
    "bobble hat": "beanie",
    "sun hat": "brimmed hat",
    "wide-brimmed hat": "brimmed hat",
    "hat": "cap, beanie, brimmed hat",
}
_THINGS = {
    "balloon": "balloon",
    "umbrella": "umbrella",
    "parasol": "umbrella",
    "brolly": "umbrella",
    "shopping bag": "bag",
    "handbag": "bag",
    "bag": "bag",
    "ball": "ball",
    "flag": "flag",
    "banner": "flag",
}
_DOING = {
    "standing( up| upright| still)?": "standing",
    "walking|strolling|taking a walk|going for a walk|out walking": "walking",
    "running|jogging|sprinting|in a hurry|rushing": "running",
    "sitting( down| on a box)?|seated|having a seat": "sitting",
    "kicking( a ball)?|playing (football|soccer)": "kicking",
    "bending( over| down| forward)?|stooping": "bending",
    "crouching( down)?|squatting|down on the heels": "crouching",
    "jumping( up)?|leaping|up in the air": "jumping",
    "waving( hello| a hand| at us)?|greeting us|saying hi": "waving",
    "(raising|throwing) both arms( up)?|with both arms up|with raised arms|"
    "with hands in the air|cheering": "raised",
    "with (both )?hands on( the)? hips|holding both hips": "hips",
    "pointing( at something| sideways)?|showing the way": "pointing",
}
_FACING = {
    "facing the camera|facing us|facing forward|looking at (the camera|us)": ("viewer",),
    "facing away|seen from behind|turned away|looking away from us|with the back to the camera|"
    "whose face cannot be seen": ("away",),
    "facing left|looking to the left|turned to the left": ("left",),
    "facing right|looking to the right|turned to the right": ("right",),
    "seen from the side": ("left", "right"),
}
_NOUNS = {
    "man|guy|gentleman|fellow|bloke": ("man",),
    "woman|lady": ("woman",),
    "little boy|boy|lad": ("boy",),
    "little girl|girl": ("girl",),
    "child|kid|youngster": ("boy", "girl"),
    "person|one|figure|individual|human|character": ("man", "woman", "boy", "girl"),
}
_RELATIONS = (
    "on the left side of|to the left of|on the left of|left of",
    "on the right side of|to the right of|on the right of|right of",
    "side by side with|next to|beside|close to|near",
    "partly hidden behind|covered by|behind",
    "in front of",
)
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
_PREFIXES = (
    "find|show me|point out|where is|look for|select|mark|it is|please find|can you see|locate|"
    "segment|i mean"
)
_FILLER = {
    "the",
    "a",
    "an",
    "that",
    "who",
    "is",
    "in",
    "wearing",
    "dressed",
    "with",
    "and",
    "has",
    "wears",
}


def any_of(words) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


class Reader:
    """Who of a scene's people a text may mean."""

    def __init__(self, people: list[ScenePerson], width: int) -> None:
        self.people, self.width = people, width
        self.order = sorted(range(len(people)), key=lambda i: people[i].centre_x)

    def meant(self, text: str) -> list[int]:
        text = re.sub(rf"^({_PREFIXES}) ", "", text)
        between = re.search(r" (in the middle between|in between|between) (the .*)$", text)
        if between:
            names = between.group(2).split(" and the ")
            # A description may hold an "and" of its own, but none before a "the".
            assert len(names) == 2, text
            first, second = (self.only(name) for name in names)
            low, high = sorted(self.people[i].centre_x for i in (first, second))
            return [
                i
                for i in self.described(text[: between.start()])
                if low < self.people[i].centre_x < high
            ]
        for number, words in enumerate(_RELATIONS):
            found = re.search(rf"^(.*?) (?<!from )({words}) (the .*)$", text)
            if found:
                anchor = self.people[self.only(found.group(3))]
                return [
                    i
                    for i in self.described(found.group(1))
                    if self.people[i] is not anchor and self.related(number, self.people[i], anchor)
                ]
        return self.described(text)

    def only(self, text: str) -> int:
        found = self.described(text)
        assert len(found) == 1, (text, found)
        return found[0]

    @staticmethod
    def related(number: int, me: ScenePerson, them: ScenePerson) -> bool:
        overlap = min(me.box[0] + me.box[2], them.box[0] + them.box[2]) - max(
            me.box[0], them.box[0]
        )
        return (
            me.centre_x < them.centre_x,
            me.centre_x > them.centre_x,
            abs(me.centre_x - them.centre_x) < 0.35 * (me.scale + them.scale),
            overlap > 0 and me.foot[1] < them.foot[1],
            overlap > 0 and me.foot[1] > them.foot[1],
        )[number]

    def described(self, text: str) -> list[int]:
        """Indices of the people for whom every word of a description is true."""
        true_for = set(range(len(self.people)))
        rest = f" {text} "

        def take(pattern: str, rule) -> None:
            nonlocal rest
            for found in re.finditer(rf"(?<= )(?:{pattern})(?= )", rest):
                true_for.intersection_update(i for i, p in enumerate(self.people) if rule(p, found))
            rest = re.sub(rf"(?<= )(?:{pattern})(?= )", "", rest)
            rest = re.sub(" +", " ", rest)

        def worn(item, kinds: str, colour: str | None, pattern: str | None = None) -> bool:
            return (
                item is not None
                and item.kind in kinds.split(", ")
                and colour in (None, item.colour)
                and (
                    pattern is None or {"st": "striped"}.get(pattern[:2], "dotted") == item.pattern
                )
            )

        start = "(?:with|wearing|who has|who wears)"
        take(
            "without a hat|with no hat|wearing no hat",
            lambda p, f: p.appearance.hat is None,
        )
        take(
            rf"{start} (?:an? )?(?:({_COLOUR}) )?({any_of(_HATS)})(?: on(?! the))?",
            lambda p, f: worn(p.appearance.hat, _HATS[f[2]], _colour(f[1])),
        )
        take(
            rf"(?:holding|with|carrying|who holds|who carries) an? (?:({_COLOUR}) )?"
            rf"({any_of(_THINGS)})",
            lambda p, f: worn(p.appearance.thing, _THINGS[f[2]], _colour(f[1])),
        )
        take(
            "(?:with|who has) (long|short) hair",
            lambda p, f: (
                p.appearance.hair_colour is not None and p.appearance.long_hair == (f[1] == "long")
            ),
        )
        hair = "black|brown|blond|red|gray"
        take(
            rf"({hair})-haired|(?:with|who has) ({hair}) hair|whose hair is ({hair})",
            lambda p, f: p.appearance.hair_colour == (f[1] or f[2] or f[3]),
        )
        take("bald", lambda p, f: p.appearance.hair_colour is None)
        take("bearded|with a beard|who has a beard", lambda p, f: p.appearance.beard)
        take("with glasses|wearing glasses|who wears glasses", lambda p, f: p.appearance.glasses)
        take(
            rf"(?:an? )?(?:({_COLOUR}) )?(?:(striped|stripy|stripey|dotted|spotted|polka-dot) )?"
            rf"({any_of(_TOPS)})",
            lambda p, f: worn(p.appearance.top, _TOPS[f[3]], _colour(f[1]), f[2]),
        )
        take(
            rf"(?:a )?(?:({_COLOUR}) )?({any_of(_BOTTOMS)})",
            lambda p, f: worn(p.appearance.bottom, _BOTTOMS[f[2]], _colour(f[1])),
        )
        take(
            "(walking|running) (?:to|towards) the (left|right)",
            lambda p, f: p.pose.action == f[1] and p.pose.facing == f[2],
        )
        take(
            "pointing (?:to|towards) the (left|right)",
            lambda p, f: p.pose.arms == "pointing" and pointing_side(p) == f[1],
        )
        for pattern, facing in _FACING.items():
            take(pattern, lambda p, f, facing=facing: p.pose.facing in facing)
        count = len(self.people)
        take(
            "(?:on the far|farthest to the) (left|right)|(left|right)most",
            lambda p, f: p.index == self.order[0 if (f[1] or f[2]) == "left" else -1],
        )
        take(
            rf"({any_of(_ORDINALS)}) from the (left|right)",
            lambda p, f: (
                self.order.index(p.index)
                == (_ORDINALS.index(f[1]) if f[2] == "left" else count - 1 - _ORDINALS.index(f[1]))
            ),
        )
        take(
            "(?:on|at) the (left|right)(?: side| half of the image)?",
            lambda p, f: (p.centre_x < self.width / 2) == (f[1] == "left"),
        )
        take(
            "in the (?:very )?(?:middle|center)",
            lambda p, f: count % 2 == 1 and self.order.index(p.index) == count // 2,
        )
        take(
            "in front|at the front|in the foreground|closest to the camera|nearest to us",
            lambda p, f: p.foot[1] == max(q.foot[1] for q in self.people),
        )
        take(
            "in the back|at the back|in the background|farthest from the camera|farthest away",
            lambda p, f: p.foot[1] == min(q.foot[1] for q in self.people),
        )
        take("in the picture|in the image|in the photo|in this scene", lambda p, f: count == 1)
        for pattern, doing in _DOING.items():
            take(pattern, lambda p, f, doing=doing: doing in (p.pose.action, p.pose.arms))
        for pattern, kinds in _NOUNS.items():
            take(pattern, lambda p, f, kinds=kinds: p.appearance.kind in kinds)
        take(
            rf"(?:(?:in|wearing|with|and) )?({_COLOUR})",
            lambda p, f: (
                p.appearance.top.colour == _colour(f[1])
                or (p.appearance.bottom and p.appearance.bottom.colour == _colour(f[1]))
            ),
        )
        assert set(rest.split()) <= _FILLER, f"{text!r}: does not understand {rest!r}"
        return sorted(true_for)


def pointing_side(person: ScenePerson) -> str:
    """Read from the image's geometry: on which side of the shoulder the raised hand is."""
    wrist, shoulder = (9, 5) if person.pose.active_side == 1 else (10, 6)
    keypoints = person.keypoints
    if keypoints[wrist, 2] == 0 or keypoints[shoulder, 2] == 0:
        return "unknown"
    return "left" if keypoints[wrist, 0] < keypoints[shoulder, 0] else "right"


def combinations_in(text: str) -> set[tuple[str, str]]:
    """(colour, what has it) put together by the words of a description; see Reader.described."""
    found = set()
    families = dict.fromkeys(_TOPS, "top") | dict.fromkeys(("dress", "gown", "frock"), "dress")
    families |= dict.fromkeys(_BOTTOMS, "bottom") | dict.fromkeys(_HATS, "hat")
    families |= dict.fromkeys(_THINGS, "thing")
    pattern = "striped|stripy|stripey|dotted|spotted|polka-dot"
    for part in re.split(
        r" (?:of|behind|by|next to|beside|close to|near|with|between) (?=the )| and (?=the )", text
    ):
        tops = set()
        for match in re.finditer(
            rf"(?<![\w-])({_COLOUR}) (?:(?:{pattern}) )?({any_of(families)})(?![\w-])", part
        ):
            found.add((_colour(match[1]), families[match[2]]))
            if families[match[2]] in ("top", "dress"):
                tops.add(_colour(match[1]))
        for match in re.finditer(
            rf"(?:in|wearing|dressed in|with|and) ({_COLOUR})(?= and| [a-z]+ing|$| (?:on|who))",
            part,
        ):
            found.add((_colour(match[1]), "top"))
            tops.add(_colour(match[1]))
        for words, doing in _DOING.items():
            if re.search(rf"(?<![\w-])(?:{words})(?![\w-])", part):
                found |= {(top, doing) for top in tops}
    return found
