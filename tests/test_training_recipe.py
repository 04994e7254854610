"""Recipes: what is accepted, what is refused with which mend, and where each value comes from."""

from __future__ import annotations

import pytest
import yaml

from boresight.errors import InputError
from boresight.objectives import objectives
from boresight.training.recipe import Recipe

BASE = {"method": "dpo", "model": "m", "data": "d.jsonl", "out": "run"}


def test_own_and_method_options_lie_side_by_side():
    recipe = Recipe.read(BASE, beta=0.05, lr=1e-6, batch=4)
    assert recipe.hyperparameters() == {"beta": 0.05, "label_smoothing": 0.0}
    assert (recipe.peak_lr, recipe.batch) == (1e-6, 4)


@pytest.mark.parametrize(
    ("words", "named", "mend"),
    [
        ({"betta": 0.1}, "betta", "beta"),
        ({"btach": 4}, "btach", "batch"),
        ({"batch": 0}, "batch=0", "global batch"),
        ({"batch": "many"}, "batch='many'", "global batch"),
        ({"schedule": "cosin"}, "schedule='cosin'", "learning rate"),
        ({"beta": "high"}, "beta='high'", "beta=0.1"),
        ({"beta": True}, "beta=True", "beta=0.1"),
        ({"method": "dop"}, "dop", "dpo"),
        ({"method": "nowhere.at_all"}, "nowhere.at_all", "package.module.function"),
        ({"method": "math.sqrt"}, "math.sqrt", "@boresight.objective"),
        ({"model": " "}, "model", "model to train"),
        ({"data": None}, "data=", "training data"),
        ({"lr": -1.0}, "lr=-1.0", "learning rate"),
    ],
)
def test_what_is_refused_names_the_key_and_the_mend(words, named, mend):
    with pytest.raises(InputError) as caught:
        Recipe.read({**BASE, **words})
    assert named in caught.value.what
    assert mend in caught.value.mend
    assert caught.value.exit_code == 2


def test_every_value_has_a_source_for_every_method():
    for name in objectives():
        settings = Recipe.read({**BASE, "method": name}).settings()
        assert not [s.name for s in settings if not s.source]
        assert {s.name for s in settings if s.source == "given"} == set(BASE)


def test_default_lr_is_the_methods_and_ten_times_that_for_adapters():
    lr = objectives()["dpo"].lr
    assert Recipe.read(BASE).peak_lr == lr
    assert Recipe.read(BASE, adapter="lora").peak_lr == 10 * lr
    assert Recipe.read(BASE, adapter="lora", lr=0.0).peak_lr == 0.0  # given is given, zero too


def test_yaml_round_trip_and_overrides(tmp_path):
    recipe = Recipe.read(BASE, beta=0.3, lr=2e-6, max_steps=7)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.dump(), encoding="utf-8")
    assert Recipe.read(path).values() == recipe.values()
    assert Recipe.read(path, beta=0.4).hyperparameters()["beta"] == 0.4


def test_yaml_numbers_people_write(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("method: dpo\nmodel: m\ndata: d\nout: o\nlr: 1e-6\nbeta: 5E-2\n", encoding="utf-8")
    recipe = Recipe.read(path)
    assert (recipe.peak_lr, recipe.hyperparameters()["beta"]) == (1e-6, 0.05)
    assert yaml.safe_load("1e-6") == "1e-6"  # what YAML 1.1 makes of it, and why the above is needed


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("method: dpo\n\tmodel: m\n", "line 2"),
        ("- a\n- b\n", "key: value"),
        ("", "key: value"),
    ],
)
def test_unreadable_recipes_say_where(tmp_path, text, named):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        Recipe.read(path)
    assert str(path) in caught.value.what
    assert named in caught.value.what


def test_missing_recipe():
    with pytest.raises(InputError, match=r"no recipe at nowhere\.yaml"):
        Recipe.read("nowhere.yaml")


def test_no_hyperparameter_shadows_an_option():
    for name, known in objectives().items():
        assert not set(known.hyperparameters) & set(Recipe.model_fields), name
