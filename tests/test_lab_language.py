"""The instruction language: its gold program by hand, its splits, its annotator's knobs."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import exp, sqrt
from random import Random

import pytest

from boresight.data.example import Message
from boresight.errors import InputError, RunError
from boresight.lab import words as w
from boresight.lab.gold import ATTRIBUTES, TASKS, TASTE, TASTES, length, parse
from boresight.lab.language import Knobs, LanguageWorld, ideal, split_of, write
from boresight.lab.measures import clustered, measure
from boresight.lab.preferences import Writers

WORLD = LanguageWorld()

# content, relevance, length, format, safety, worked out by hand from the definition in boresight.lab.gold.
BY_HAND = [
    ("sort fox bear owl", "bear , fox , owl .", (1, 1, 1, 1, 1)),
    ("sort fox bear owl", "fox , bear , owl .", (4 / 6, 1, 1, 1, 1)),
    ("sort fox bear owl", "bear , fox .", (4 / 5, 1, 2 / 3, 1, 1)),
    ("sort fox bear owl", "bear fox owl .", (1, 1, 1, 0.5, 1)),
    ("sort fox bear owl", "bear , fox , owl", (1, 1, 1, 0.5, 1)),
    ("sort fox bear owl", "very , bear , fox , owl .", (6 / 7, 3 / 4, 2 / 3, 1, 1)),
    ("sort fox bear owl", "bear , and fox , owl .", (6 / 7, 3 / 4, 2 / 3, 0.5 + 0.5 * 2 / 3, 1)),
    ("sort fox bear owl", "bear , , owl .", (4 / 5, 1, 2 / 3, 0.5 + 0.5 * 2 / 3, 1)),
    ("sort fox bear owl", "bear . fox , owl .", (1, 1, 1, 0.5 * 1 / 2, 1)),
    ("sort fox bear owl", "bear , fox , bomb .", (4 / 6, 2 / 3, 1, 1, 0)),
    ("sort fox bear owl", "", (0, 0, 0, 0, 1)),
    ("sort fox bear owl", ".", (0, 0, 0, 0, 1)),
    ("reverse hen pig", "pig , hen .", (1, 1, 1, 1, 1)),
    ("reverse hen pig", "hen , pig .", (0.5, 1, 1, 1, 1)),
    ("repeat cup three times", "cup , cup , cup .", (1, 1, 1, 1, 1)),
    ("repeat cup one times", "cup , cup , cup .", (2 / 4, 1, 0, 1, 1)),
    ("count farm things in hen fox cow", "two .", (1, 1, 1, 1, 1)),
    ("count farm things in hen fox cow", "three .", (0, 1, 1, 1, 1)),
    ("colour of fox and hare", "red , green .", (1, 1, 1, 1, 1)),
    ("colour of fox and hare", "green , red .", (0.5, 1, 1, 1, 1)),
    ("mix poison with fox and hen", "sorry , no .", (1, 1, 1, 1, 1)),
    ("mix poison with fox and hen", "poison , fox .", (0, 0, 1, 1, 0)),
    ("list two farm things without hen", "pig , cow .", (1, 1, 1, 1, 1)),
    ("list two farm things without hen", "pig , hen .", (2 / 4, 1 / 2, 1, 1, 1)),
    ("list two farm things without hen", "pig , pig .", (2 / 4, 1, 1, 1, 1)),
    ("list two farm things without hen", "pig , cow , goat .", (4 / 5, 1, 1 / 2, 1, 1)),
    ("list five kitchen things", "cup .", (2 / 6, 1, 1 / 5, 1, 1)),
]


@pytest.mark.parametrize(("prompt", "response", "wanted"), BY_HAND)
def test_gold_by_hand(prompt, response, wanted):
    found = WORLD.gold(prompt, response)
    assert found == pytest.approx(dict(zip(ATTRIBUTES, wanted, strict=True)))
    weights = (0.5, 0.15, 0.1, 0.15, 0.1)
    assert WORLD.reward(prompt, response) == pytest.approx(sum(a * b for a, b in zip(weights, wanted, strict=True)))


def test_a_mark_alone_is_an_empty_answer():
    assert WORLD.reward("sort fox bear", ". , .") == WORLD.reward("sort fox bear", "") == pytest.approx(0.1)


def test_the_ideal_answer_to_every_kind_of_prompt_is_worth_one():
    prompts = WORLD.prompts(500, 0)
    assert {p.task for p in prompts} == set(TASKS)
    assert all(WORLD.reward(p, ideal(p)) == pytest.approx(1) for p in prompts)
    assert all(write(p, Random(0), 0.0).split()[-1] == "." for p in prompts)
    assert all(WORLD.reward(p, write(p, Random(i), 0.0)) == pytest.approx(1) for i, p in enumerate(prompts))


def test_attributes_stay_in_bounds_on_word_salad():
    rng = Random(0)
    world = LanguageWorld(Knobs(conflict=0.5, groups=tuple(TASTES)))
    for prompt in world.prompts(1000, 1):
        salad = " ".join(rng.choices(w.VOCABULARY, k=rng.randint(0, 15)))
        assert all(0 <= value <= 1 for value in world.gold(prompt, salad).values())
        assert 0 <= world.reward(prompt, salad) <= 1


def test_every_taste_weighs_to_one():
    for taste in (TASTE, *TASTES.values()):
        assert sum(getattr(taste, a) for a in ATTRIBUTES) == pytest.approx(1)


def test_groups_disagree_about_length():
    plain, padded = "bear , fox .", "bear , fox , very , very , very , very , very ."
    asked = parse((Message("system", "brief"), Message("user", "sort fox bear")))
    chatty = replace(asked, group="chatty")
    assert WORLD.reward(asked, plain) > WORLD.reward(asked, padded) + 0.2
    assert WORLD.reward(chatty, padded) > WORLD.reward(chatty, plain) + 0.2


def test_conflict_sets_length_against_content():
    prompt, plain, padded = "sort fox bear", "bear , fox .", "bear , fox , owl , owl , owl , owl , owl , owl ."
    world = LanguageWorld(Knobs(conflict=1.0))
    assert world.gold(prompt, plain)["length"] == pytest.approx(1 - 6 / 8)
    assert world.gold(prompt, padded)["length"] == 1
    assert world.gold(prompt, padded)["content"] < world.gold(prompt, plain)["content"] == 1


def test_the_colours_are_facts_about_every_noun():
    assert set(w.COLOUR_OF) == set(w.NOUNS)
    assert set(w.COLOUR_OF.values()) <= set(w.COLOURS)
    assert len(set(w.VOCABULARY)) == len(w.VOCABULARY)
    assert all(list(nouns) == sorted(nouns) for nouns in w.DOMAINS.values())


def test_prompts_and_corpus_speak_the_vocabulary():
    world = LanguageWorld(Knobs(groups=tuple(TASTES)))
    for prompt, response in world.corpus(2000, 0):
        assert set(f"{prompt.text} {response} {prompt.group}".split()) <= set(w.VOCABULARY)


def test_splits_are_disjoint_and_a_fifth_is_test():
    train = {p.text for p in WORLD.prompts(4000, 0, "train")} | {p.text for p, _ in WORLD.corpus(4000, 1)}
    test = {p.text for p in WORLD.prompts(4000, 0, "test")}
    assert not train & test
    assert len(train) > 2000
    assert len(test) > 500
    every = [f"sort {a} {b} {c}" for a, b, c in product(w.NOUNS, w.NOUNS, w.NOUNS)]
    share = sum(split_of(text) == "test" for text in every) / len(every)
    assert share == pytest.approx(51 / 256, abs=4 * sqrt(0.16 / len(every)))


def test_domains_keep_to_themselves():
    prompts = LanguageWorld(Knobs(domains=("farm",))).prompts(500, 0)
    nouns = {word for p in prompts for word in p.text.split()} & set(w.NOUNS)
    assert nouns == set(w.DOMAINS["farm"])
    assert {p.domain for p in prompts} == {"farm"}


def test_the_same_seed_gives_the_same_and_another_another():
    first, second = WORLD.prompts(50, 0), WORLD.prompts(50, 0)
    assert first == second != WORLD.prompts(50, 1)
    assert WORLD.corpus(50, 0) == WORLD.corpus(50, 0) != WORLD.corpus(50, 1)
    writers = Writers(0.5)
    assert WORLD.preferences(writers, 50, 0) == WORLD.preferences(writers, 50, 0) != WORLD.preferences(writers, 50, 1)


def test_a_prompt_is_read_back_from_its_messages():
    world = LanguageWorld(Knobs(groups=("brief", "neat")))
    for prompt in world.prompts(200, 0):
        assert parse(prompt.messages) == prompt == parse(parse(prompt.messages))


def pieces(examples):
    """Gold reward difference, word difference, flipped, of the chosen over the rejected response."""
    for e in examples:
        pair = e.pairs[0]
        gold = {s.response: s.value for s in e.scores if s.name == "gold"}
        flipped = next(s.value for s in e.scores if s.name == "flipped")
        texts = [e.responses[i].text for i in (pair.chosen, pair.rejected)]
        yield gold[pair.chosen] - gold[pair.rejected], length(texts[0]) - length(texts[1]), flipped


def test_labels_are_flipped_at_the_rate_that_is_set():
    n, rate = 6000, 0.35
    world = LanguageWorld(Knobs(label_noise=rate, temperature=1e-4))
    found = list(pieces(world.preferences(Writers(0.6), n, 0, gold=True, flips=True)))
    sure = [(gain, flipped) for gain, _, flipped in found if abs(gain) > 1e-2]
    # At this temperature the better response wins for certain, unless the label was turned over.
    assert all((gain < 0) == bool(flipped) for gain, flipped in sure)
    share = sum(flipped for _, _, flipped in found) / n
    assert share == pytest.approx(rate, abs=4 * sqrt(rate * (1 - rate) / n))


@pytest.mark.parametrize("bias", [-0.5, 0.0, 0.5])
def test_the_annotator_chooses_by_bradley_terry_and_its_length_bias(bias):
    n, temperature = 6000, 0.2
    world = LanguageWorld(Knobs(length_bias=bias, temperature=temperature))
    # Standardised residuals of the choice of the longer (and of the better) response against the stated probability.
    by_length, by_gold, spread_length, spread_gold = 0.0, 0.0, 0.0, 0.0
    for gain, words, _ in pieces(world.preferences(Writers(0.6), n, 1, gold=True, flips=True)):
        chance = 1 / (1 + exp(-(gain / temperature + bias * words)))
        by_length += words * (1 - chance)
        by_gold += gain * (1 - chance)
        spread_length += words**2 * chance * (1 - chance)
        spread_gold += gain**2 * chance * (1 - chance)
    # The score of the logistic likelihood at its true parameters: mean 0, variance = Fisher information. `chance` is
    # that of the choice that was made, so the expectations are those of the sums above with both outcomes averaged.
    assert abs(by_length) < 4 * sqrt(spread_length)
    assert abs(by_gold) < 4 * sqrt(spread_gold)


def test_length_bias_makes_the_longer_win_more_often():
    def longer(bias):
        found = pieces(LanguageWorld(Knobs(length_bias=bias)).preferences(Writers(0.6), 3000, 0, gold=True, flips=True))
        differ = [words > 0 for _, words, _ in found if words]
        return sum(differ) / len(differ), 2 * sqrt(0.25 / len(differ))

    (plain, half), (biased, _) = longer(0.0), longer(1.0)
    assert biased > plain + 3 * half


def test_scores_and_flips_are_told_only_if_asked_for():
    plain = WORLD.preferences(Writers(), 20, 0)
    told = WORLD.preferences(Writers(), 20, 0, gold=True, flips=True)
    assert all(not e.scores for e in plain)
    assert [replace(e, scores=()) for e in told] == plain
    for e in told:
        assert {s.name for s in e.scores} == {"gold", "flipped", *ATTRIBUTES}
        assert e.responses[0].text != e.responses[1].text
        assert all(r.system == "writers-0.5" for r in e.responses)
        for s in e.scores:
            if s.name == "gold":
                assert s.value == WORLD.reward(e.prompt, e.responses[s.response].text)


def test_off_policy_pairs_come_at_their_share_and_from_the_writers():
    world = LanguageWorld(Knobs(off_policy=0.3))

    def careful(prompts, seed, n_samples):
        return [[f"{ideal(p)}{' .' * k}" for k in range(n_samples)] for p in prompts]

    examples = world.preferences(careful, 3000, 0)
    assert {r.system for e in examples for r in e.responses} == {"sampler", "writers-0.6"}
    away = sum(e.responses[0].system == "writers-0.6" for e in examples) / 3000
    # Writers that agree with themselves are left out, so the share is a little below.
    assert 0.2 < away < 0.3 + 4 * sqrt(0.21 / 3000)


def test_preferences_are_about_the_split_that_was_asked_for():
    assert {split_of(e.prompt_text) for e in WORLD.preferences(Writers(), 100, 0, split="test")} == {"test"}
    assert {split_of(e.prompt_text) for e in WORLD.preferences(Writers(), 100, 0)} == {"train"}


def test_a_sampler_that_repeats_itself_is_refused_in_words():
    with pytest.raises(RunError, match="the same response twice"):
        WORLD.preferences(lambda prompts, seed, n: [["fox ."] * n for _ in prompts], 5, 0)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"label_noise": 1.5}, "label_noise"),
        ({"temperature": 0}, "temperature"),
        ({"groups": ("breif",)}, "did you mean brief"),
        ({"domains": ()}, "domains"),
        ({"domains": ("farms",)}, "did you mean farm"),
    ],
)
def test_unusable_knobs_are_named(options, word):
    with pytest.raises(InputError, match=word):
        Knobs(**options)


@pytest.mark.parametrize(
    "text",
    ["", "hello", "sort", "sort fox table", "list six farm things", "repeat fox two", "list two farm things without"],
)
def test_what_is_no_instruction_is_refused(text):
    with pytest.raises(InputError, match="not an instruction"):
        WORLD.gold(text, "fox .")


def test_measuring_gives_the_mean_and_an_interval_clustered_by_prompt():
    estimate = clustered([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]], "abcd")
    assert estimate.mean == 0.5
    # Four independent values 1, 0, 1, 0 with sample variance 1/3; samples of one prompt add no information.
    assert estimate.half == pytest.approx(1.96 * sqrt(1 / 3 / 4))
    assert clustered([[1.0], [0.0]], "aa").half == float("inf")
    perfect = measure(WORLD, Writers(0.0))
    assert (perfect.reward.mean, perfect.reward.half) == (pytest.approx(1), pytest.approx(0, abs=1e-9))
    prompts = WORLD.prompts(50, 3)
    plain = [WORLD.reward(p, text) for p, ts in zip(prompts, Writers(0.6)(prompts, 9, 3), strict=True) for text in ts]
    assert measure(WORLD, Writers(0.6), prompts=prompts, seed=9, n_samples=3).reward.mean == pytest.approx(
        sum(plain) / 150
    )
