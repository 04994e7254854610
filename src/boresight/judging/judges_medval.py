"""Training a validator without labels: texts made worse by known degrees, and the grades that agree with them.

Source: Aali et al. 2025, "MedVAL"; the form of the metric is that of the released code (StanfordMIMI/MedVAL,
medval/pipeline.py, validator_metric; threshold 0.95 in configs/train.yaml). There a language model writes the worse
texts, told which errors to make; here `degrade` is a function of one's own, such as one that calls
`boresight.curation.degrade.degraded`, which takes key content away and needs no model. There as here the grade of the
clean text is part of the metric, and what is kept are the validator's own answers: reasons, errors, risk. Their
threshold still keeps grades that miss a low degree by one of four.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from boresight.data.example import Example, Message, Response
from boresight.errors import InputError
from boresight.judging.endpoint import Advance
from boresight.judging.judge_ask import Judge, Ruling
from boresight.judging.prompts import text_of
from boresight.paper import paper

THRESHOLD = 0.95
Degrade = Callable[[Example, int], Example]
"""degrade(example, level) -> the example with its one response made worse; level 1 leaves it as it is."""


@paper("medval")
def agreement(level: int, grade: float, clean: float, levels: int) -> float:
    """How well a validator's grades fit a known degradation, from 0 to 1 at best.

    level: of the degraded text, 1 (none) .. levels; grade: what the validator gave it; clean: what it gave the text as
    it was. With each moved to [0, 1] by (x - 1) / (levels - 1), as d, g and c:
    1 - (c^2 + (g - d)^2 + (g - c - d)^2) / 6.
    Raises ValueError if levels < 2 or one of the three is outside 1 .. levels.
    """
    if levels < 2 or not all(1 <= x <= levels for x in (level, grade, clean)):
        raise ValueError(
            f"level {level}, grade {grade} and clean {clean} must lie in 1 .. levels = {levels}, 2 or more"
        )
    d, g, c = ((x - 1) / (levels - 1) for x in (level, grade, clean))
    return 1 - (c**2 + (g - d) ** 2 + (g - c - d) ** 2) / 6


@dataclass(frozen=True)
class Validated:
    """What is kept to train a validator. rows: the question and the validator's own answer to it, as demonstrations.

    agreements: of every graded pair, kept or not. unread: pairs of which a grade is missing, by reason.
    """

    rows: tuple[Example, ...]
    agreements: tuple[float, ...]
    unread: dict[str, int] = field(default_factory=dict)


@paper("medval")
def validate(
    judge: Judge,
    examples: Sequence[Example],
    degrade: Degrade,
    *,
    threshold: float = THRESHOLD,
    levels_of: Callable[[int, int], int] | None = None,
    advance: Advance | None = None,
) -> Validated:
    """Degrade each text, have it graded as it was and degraded, and keep what agrees by `threshold` or more.

    judge: with a pointwise template, such as `validate`, whose scale 1 .. L are the levels. examples: a source as the
    prompt, and one text made from it. levels_of(place, L): the level of each example; by default 1, 2, .. L and over.
    The row that is kept is the degraded text's: its level is not in the question, so that the answer had to find it.

    Raises InputError for another template, a threshold outside [0, 1], or examples without exactly one response.
    """
    low, top = judge.template.scale
    if judge.template.kind != "pointwise" or low != 1:
        raise InputError(f"template {judge.template.name}: no grades from 1", mend="take the template validate")
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold is {threshold}", mend="give a number from 0 to 1")
    bad = next((e for e in examples if len(e.responses) != 1), None)
    if bad is not None or not examples:
        where = (bad.source or bad.id or "an example") if bad is not None else "the data"
        raise InputError(f"{where}: not exactly one response", mend="give a source and one text made from it")
    levels = [levels_of(k, top) if levels_of else k % top + 1 for k in range(len(examples))]
    worse = [degrade(example, level) for example, level in zip(examples, levels, strict=True)]
    both = [example for pair in zip(examples, worse, strict=True) for example in pair]
    values = [{"prompt": text_of(e.prompt), "response": text_of(e.responses[0].content)} for e in both]
    rulings = judge.rule([(value, 0) for value in values], advance)
    rows, found, unread = [], [], dict[str, int]()
    for k, (example, level) in enumerate(zip(examples, levels, strict=True)):
        clean, graded = rulings[2 * k : 2 * k + 2]
        missing = next((r for r in (clean, graded) if r.value is None), None)
        if missing is not None or clean.value is None or graded.value is None:
            why = missing.why if missing else ""
            unread[why] = unread.get(why, 0) + 1
            continue
        found.append(agreement(level, graded.value, clean.value, top))
        if found[-1] >= threshold:
            rows.append(_row(judge, example, values[2 * k + 1], graded, level))
    return Validated(tuple(rows), tuple(found), unread)


def _row(judge: Judge, example: Example, values: dict[str, str], ruling: Ruling, level: int) -> Example:
    """What the validator was asked, without markers' secrets, and what it answered."""
    messages = judge.question(values).messages
    prompt = tuple(Message(m["role"], m["content"]) for m in messages)
    answer = ruling.answer.text if ruling.answer is not None and ruling.answer.text is not None else ""
    return replace(
        example, prompt=prompt, responses=(Response(answer, judge.name),), pairs=(), scores=(), labels=(), ranks=(),
        steps=(), id=None if example.id is None else f"{example.id}~{level}",
    )  # fmt: skip
