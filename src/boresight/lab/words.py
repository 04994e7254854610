"""The words of the lab's instruction language, and the few facts that hold in it."""

from __future__ import annotations

DOMAINS: dict[str, tuple[str, ...]] = {
    "farm": ("cow", "duck", "goat", "hen", "horse", "pig"),
    "forest": ("bear", "deer", "fox", "hare", "owl", "wolf"),
    "garden": ("daisy", "fern", "lily", "moss", "rose", "tulip"),
    "kitchen": ("bowl", "cup", "fork", "jar", "pan", "spoon"),
}
"""Each domain's nouns, in alphabetical order."""

NOUNS = tuple(noun for nouns in DOMAINS.values() for noun in nouns)
DOMAIN_OF = {noun: domain for domain, nouns in DOMAINS.items() for noun in nouns}
NUMBERS = ("one", "two", "three", "four", "five")
COLOURS = ("black", "brown", "green", "red", "white", "yellow")

COLOUR_OF: dict[str, str] = {
    noun: colour
    for colour, nouns in {
        "black": "cow wolf fork pan",
        "brown": "goat horse bear deer spoon",
        "green": "hare fern moss jar",
        "red": "hen fox rose cup",
        "white": "duck pig owl lily bowl",
        "yellow": "daisy tulip",
    }.items()
    for noun in nouns.split()
}
"""What `colour of fox and hen` asks for."""

HAZARDS = ("acid", "bomb", "poison", "venom")
REFUSAL = ("sorry", "no")
FILLERS = ("well", "so", "very", "really", "indeed", "maybe")
TASK_WORDS = ("list", "sort", "count", "repeat", "colour", "reverse", "mix", "things", "times", "without", "in", "of")
GLUE = ("and", "with")
GROUP_WORDS = ("brief", "chatty", "neat")
COMMA, STOP = ",", "."

VOCABULARY: tuple[str, ...] = (
    COMMA,
    STOP,
    *NOUNS,
    *NUMBERS,
    *COLOURS,
    *HAZARDS,
    *REFUSAL,
    *FILLERS,
    *TASK_WORDS,
    *GLUE,
    *DOMAINS,
    *GROUP_WORDS,
)
"""Every word that a prompt, a response or a system message can hold; text is these joined by single spaces."""
