"""What can be told of a response by looking at it alone: a register of small functions, none of which asks a model.

A feature is a function of a `Seen`, a response with what several features want of it, that returns a finite number. It
is registered with the words that complete "the preferred response ..." where it is higher, and where it is lower:

    @feature("digits", "has more numbers", "has fewer numbers")
    def digits(seen: Seen) -> float: ...

Counts are taken as log(1 + count), so that the tenth list item says less than the first. Word lists are English.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import log1p

from boresight.data.checks.responses import refuses

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
SENTENCE_END = re.compile(r"[.!?…]+(?=[\s\"'”’)\]]|$)")
LIST_ITEM = re.compile(r"^[ \t]*(?:[-*•+]|\d{1,2}[.)])[ \t]+\S", re.MULTILINE)
HEADER = re.compile(r"^#{1,6}[ \t]+\S", re.MULTILINE)
BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
LINK = re.compile(r"https?://\S+|\]\([^)\s]+\)")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
MARK = re.compile(r"[,;:()\u2013\u2014]")
NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+")
SHOUT = re.compile(r"\b[A-Z]{2,}\b")
EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")
HEDGE = re.compile(
    r"\b(?:i (?:think|guess|suppose|believe|imagine)|maybe|perhaps|possibly|probably|might|may be|could be|seems?|"
    r"sort of|kind of|not sure|unsure|i'm not certain|in my opinion|if i have to|apparently|somewhat)\b"
)
POLITE = re.compile(
    r"\b(?:please|thanks|thank you|you're welcome|of course|certainly|sure|glad|gladly|happy to|great|my pleasure|"
    r"let me know|hope (?:this|that) helps|feel free)\b"
)
SORRY = re.compile(r"\b(?:sorry|apologi[sz]e|apologies|regret|unfortunately|afraid)\b")
NOT = re.compile(r"\b(?:no|not|never|none|nothing|cannot|\w+n't)\b")
STEP = re.compile(r"\b(?:first(?:ly)?|second(?:ly)?|third(?:ly)?|then|next|finally|because|therefore|for example)\b")
FIRST = frozenset(WORD.findall("i i'm i'll i've i'd me my mine myself we we're our us"))
SECOND = frozenset(WORD.findall("you you're you'll you've you'd your yours yourself"))
STOP = frozenset(
    WORD.findall(
        "a about after all also am an and any are as at be because been but by can could did do does for from get "
        "had has have he her him his how i if in into is it its just like me more my no not of on one or our out "
        "she so some than that the their them then there these they this to up us was we were what when where "
        "which who why will with would you your i'm it's don't"
    )
)
FIRST_WORDS = 50
"""How many words the variety of a response is told by: the share of different words falls with length."""


class Seen:
    """A response to a prompt, with what several features want of it; texts are kept as they are."""

    def __init__(self, text: str, prompt: str = "") -> None:
        self.text, self.prompt = text, prompt

    @cached_property
    def lower(self) -> str:
        """The text in lower case, with one kind of apostrophe."""
        return self.text.lower().replace("’", "'")

    @cached_property
    def words(self) -> list[str]:
        """Its words in lower case."""
        return WORD.findall(self.lower)

    @cached_property
    def sentences(self) -> int:
        """How many sentences it has; at least 1 where it has a word."""
        return max(len(SENTENCE_END.findall(self.text)), int(bool(self.words)))


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature by its name: `more` and `less` complete "the preferred response ..."."""

    id: str
    more: str
    less: str
    function: Callable[[Seen], float]

    @property
    def meaning(self) -> str:
        """What it measures, in a line."""
        return " ".join((self.function.__doc__ or "").split())


FEATURES: dict[str, Feature] = {}
"""All features by name, in the order of this file."""


def feature(
    id: str, more: str, less: str, *, register: dict[str, Feature] = FEATURES
) -> Callable[[Callable[[Seen], float]], Callable[[Seen], float]]:
    """Register a function of a response as a feature. Raises ValueError if the name is taken."""

    def add(function: Callable[[Seen], float]) -> Callable[[Seen], float]:
        if id in register:
            raise ValueError(f"there is a feature {id!r} already")
        register[id] = Feature(id, more, less, function)
        return function

    return add


@feature("length", "is longer", "is shorter")
def length(seen: Seen) -> float:
    """Words, as log(1 + count)."""
    return log1p(len(seen.words))


@feature("sentences", "has more sentences", "has fewer sentences")
def sentences(seen: Seen) -> float:
    """Sentences, as log(1 + count)."""
    return log1p(seen.sentences)


@feature("word-length", "has longer words", "has shorter words")
def word_length(seen: Seen) -> float:
    """Mean letters a word; 0 without a word."""
    return sum(map(len, seen.words)) / len(seen.words) if seen.words else 0.0


@feature("paragraphs", "has more paragraphs", "has fewer paragraphs")
def paragraphs(seen: Seen) -> float:
    """Parts between blank lines, as log(1 + count)."""
    return log1p(sum(1 for part in re.split(r"\n\s*\n", seen.text) if part.strip()))


@feature("list", "has more list items", "has fewer list items")
def list_items(seen: Seen) -> float:
    """Lines that begin as list items do, as log(1 + count)."""
    return log1p(len(LIST_ITEM.findall(seen.text)))


@feature("headers", "has more headings", "has fewer headings")
def headers(seen: Seen) -> float:
    """Markdown headings, as log(1 + count)."""
    return log1p(len(HEADER.findall(seen.text)))


@feature("bold", "has more bold text", "has less bold text")
def bold(seen: Seen) -> float:
    """Pieces in markdown's bold, as log(1 + count)."""
    return log1p(len(BOLD.findall(seen.text)))


@feature("code", "has more code", "has less code")
def code(seen: Seen) -> float:
    """Blocks and pieces of code in backticks, as log(1 + count)."""
    return log1p(len(CODE.findall(seen.text)))


@feature("links", "has more links", "has fewer links")
def links(seen: Seen) -> float:
    """Addresses and markdown links, as log(1 + count)."""
    return log1p(len(LINK.findall(seen.text)))


@feature("questions", "asks more questions", "asks fewer questions")
def questions(seen: Seen) -> float:
    """Question marks, as log(1 + count)."""
    return log1p(seen.text.count("?"))


@feature("ends-asking", "ends with a question", "does not end with a question")
def ends_asking(seen: Seen) -> float:
    """Whether its last sign is a question mark."""
    return float(seen.text.rstrip("\"'”’)* \n\t").endswith("?"))


@feature("exclamations", "has more exclamation marks", "has fewer exclamation marks")
def exclamations(seen: Seen) -> float:
    """Exclamation marks, as log(1 + count)."""
    return log1p(seen.text.count("!"))


@feature("refusal", "refuses", "does not refuse")
def refusal(seen: Seen) -> float:
    """Whether it begins as refusals do (the rule of `boresight check`)."""
    return float(refuses(seen.text))


@feature("hedges", "hedges more", "hedges less")
def hedges(seen: Seen) -> float:
    """Hedges such as "I guess", "maybe", "might", as log(1 + count)."""
    return log1p(len(HEDGE.findall(seen.lower)))


@feature("polite", "is more obliging", "is less obliging")
def polite(seen: Seen) -> float:
    """Obliging words such as "please", "of course", "happy to", as log(1 + count)."""
    return log1p(len(POLITE.findall(seen.lower)))


@feature("apologies", "apologises more", "apologises less")
def apologies(seen: Seen) -> float:
    """Apologies and regrets, as log(1 + count)."""
    return log1p(len(SORRY.findall(seen.lower)))


@feature("negations", "has more negations", "has fewer negations")
def negations(seen: Seen) -> float:
    """Words such as "no", "not", "don't", as log(1 + count)."""
    return log1p(len(NOT.findall(seen.lower)))


@feature("connectives", "leads the reader more (first, then, because)", "leads the reader less (first, then, because)")
def connectives(seen: Seen) -> float:
    """Words of order and reason, as log(1 + count)."""
    return log1p(len(STEP.findall(seen.lower)))


@feature("first-person", "speaks more of itself", "speaks less of itself")
def first_person(seen: Seen) -> float:
    """ "I", "me", "we" and the like, as log(1 + count)."""
    return log1p(sum(word in FIRST for word in seen.words))


@feature("second-person", "addresses the reader more", "addresses the reader less")
def second_person(seen: Seen) -> float:
    """ "You", "your" and the like, as log(1 + count)."""
    return log1p(sum(word in SECOND for word in seen.words))


@feature("overlap", "takes up more words of the prompt", "takes up fewer words of the prompt")
def overlap(seen: Seen) -> float:
    """Share of the prompt's words, common ones apart, that it has; 0 where the prompt has none."""
    asked = {word for word in WORD.findall(seen.prompt.lower().replace("’", "'")) if word not in STOP}
    return len(asked & set(seen.words)) / len(asked) if asked else 0.0


@feature("variety", "has more varied words", "has less varied words")
def variety(seen: Seen) -> float:
    """Type-token ratio of its first 50 words; 1 without a word."""
    some = seen.words[:FIRST_WORDS]
    return len(set(some)) / len(some) if some else 1.0


@feature("repetition", "repeats itself more", "repeats itself less")
def repetition(seen: Seen) -> float:
    """Share of its runs of three words that occurred before."""
    runs = list(zip(seen.words, seen.words[1:], seen.words[2:], strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


@feature("punctuation", "has more commas and dashes", "has fewer commas and dashes")
def punctuation(seen: Seen) -> float:
    """Commas, colons, brackets and dashes for each word, as log(1 + 10 * rate)."""
    return log1p(10 * len(MARK.findall(seen.text)) / max(len(seen.words), 1))


@feature("digits", "has more numbers", "has fewer numbers")
def digits(seen: Seen) -> float:
    """Numbers, as log(1 + count)."""
    return log1p(len(NUMBER.findall(seen.text)))


@feature("names", "has more capitalised names", "has fewer capitalised names")
def names(seen: Seen) -> float:
    """Words with a capital in the middle of a sentence, as log(1 + count)."""
    return log1p(len(NAME.findall(seen.text)))


@feature("shouting", "has more words in capitals", "has fewer words in capitals")
def shouting(seen: Seen) -> float:
    """Words of two or more capitals, as log(1 + count)."""
    return log1p(len(SHOUT.findall(seen.text)))


@feature("quotes", "has more quotation marks", "has fewer quotation marks")
def quotes(seen: Seen) -> float:
    """Double quotation marks, as log(1 + count)."""
    return log1p(sum(seen.text.count(mark) for mark in '"“”'))


@feature("emoji", "has more emoji", "has fewer emoji")
def emoji(seen: Seen) -> float:
    """Emoji, as log(1 + count)."""
    return log1p(len(EMOJI.findall(seen.text)))


@feature("unfinished", "breaks off", "does not break off")
def unfinished(seen: Seen) -> float:
    """Whether its last line ends without a mark that ends a sentence."""
    return float(bool(seen.words) and not re.search(r"[.!?…:)\]\"'”’`*]\s*\Z", seen.text))


def features_of(text: str, prompt: str = "", features: dict[str, Feature] | None = None) -> list[float]:
    """The features of a response to a prompt, in the order of the register (`FEATURES` if not given)."""
    seen = Seen(text, prompt)
    return [float(one.function(seen)) for one in (FEATURES if features is None else features).values()]
