"""The words of captions.

The first of several words is the plain one; the others are the more frequent the harder the
captions are to be.
"""

from __future__ import annotations

from datasets.synthetic.people import BOYS, GIRLS, MEN, TOPS, WOMEN

KINDS = ("appearance", "action", "position", "relation", "mixed")
"""What a caption mainly speaks of; "mixed" joins two or three of the others."""

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

COLOUR_WORDS = {
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
PATTERN_WORDS = {
    "striped": ("striped", "stripy", "stripey"),
    "dotted": ("dotted", "spotted", "polka-dot"),
}
NOUNS = {
    "any": ("person", "one", "figure", "individual", "human", "character"),
    MEN: ("man", "guy", "gentleman", "fellow", "bloke"),
    WOMEN: ("woman", "lady"),
    BOYS: ("boy", "little boy", "lad"),
    GIRLS: ("girl", "little girl"),
    "child": ("child", "kid", "youngster"),
}
# Word -> what it may mean.
TOP_WORDS = {
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
BOTTOM_WORDS = {
    "trousers": ("trousers",),
    "pants": ("trousers",),
    "slacks": ("trousers",),
    "shorts": ("shorts",),
    "short pants": ("shorts",),
    "skirt": ("skirt",),
}
HAT_WORDS = {
    "cap": ("cap",),
    "baseball cap": ("cap",),
    "beanie": ("beanie",),
    "woolly hat": ("beanie",),
    "bobble hat": ("beanie",),
    "sun hat": ("brimmed hat",),
    "wide-brimmed hat": ("brimmed hat",),
    "hat": ("cap", "beanie", "brimmed hat"),
}
THING_WORDS = {
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
PLURALS = ("trousers", "pants", "slacks", "shorts", "jeans")

# What people do: phrases that follow a noun ("the man ..."), each also after "who is" where it
# starts with a word in -ing, and single words that may stand before the noun.
ACTION_PHRASES = {
    "standing": ("standing", "standing up", "standing upright", "standing still"),
    "walking": ("walking", "strolling", "taking a walk", "going for a walk", "out walking"),
    "running": ("running", "jogging", "sprinting", "in a hurry", "rushing"),
    "sitting": ("sitting", "seated", "sitting down", "having a seat", "sitting on a box"),
    "kicking": ("kicking a ball", "kicking", "playing football", "playing soccer"),
    "bending": ("bending over", "bending down", "bending forward", "stooping"),
    "crouching": ("crouching", "squatting", "crouching down", "down on the heels"),
    "jumping": ("jumping", "leaping", "jumping up", "up in the air"),
}
ARM_PHRASES = {
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
ADJECTIVES = {
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
FACING_PHRASES = {
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
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
PREFIXES = (
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
