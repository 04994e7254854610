"""Pictures judged on criteria, and ratings; a validator's training rows."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import boresight as bs
from boresight.curation.degrade import degraded
from boresight.data.example import Example, Pair, Response
from boresight.errors import InputError
from boresight.judging.endpoint import Endpoint
from boresight.judging.judge_ask import Judge
from boresight.judging.judges_images import CRITERIA, Shown, compare, elo, image_part, ratings
from boresight.judging.judges_medval import agreement, validate
from judge_server import Quick, serving


@pytest.fixture(autouse=True)
def _own(monkeypatch, tmp_path):
    for name in ("BORESIGHT_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path / "cache"))


def picture(path: Path, shade: int) -> Path:
    from PIL import Image

    Image.new("L", (4, 4), shade).save(path)
    return path


def pictures(folder: Path, systems: dict[str, int], prompts=("a cup",)) -> list[Shown]:
    return [
        Shown(prompt, system, tuple(picture(folder / f"{system}-{k}-{side}.png", shade) for side in range(2)))
        for k, prompt in enumerate(prompts)
        for system, shade in systems.items()
    ]


def shades(body) -> list[int]:
    """The grey of each picture in the message, A's then B's."""
    import io

    from PIL import Image

    parts = [p for p in body["messages"][-1]["content"] if p["type"] == "image_url"]
    urls = [p["image_url"]["url"] for p in parts]
    assert all(url.startswith("data:image/png;base64,") for url in urls)
    return [Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).getpixel((0, 0)) for url in urls]


def brighter(n, body) -> str:
    a, _, b, _ = shades(body)
    side = "A" if a > b else "B"
    return f"Some reasons.\nshape: {side}\nsurface: tie"


TWO = [("shape", "is it well formed"), ("surface", "is it well coloured")]


def test_pictures_are_sent_in_order_and_each_criterion_has_its_own_verdict(tmp_path):
    results = pictures(tmp_path, {"dim": 10, "bright": 200, "middle": 100}, ("a cup", "a hat"))
    with serving(brighter) as server, Endpoint(server.url, "eyes", clock=Quick()) as endpoint:
        verdicts = compare(Judge(endpoint, "images", criteria=TWO), results, within=tmp_path)
    assert server.calls == 2 * 6
    text = server.bodies[0]["messages"][0]["content"]
    assert "- shape: is it well formed" in text
    assert [p.get("text") for p in server.bodies[0]["messages"][-1]["content"] if p["type"] == "text"][1:] == [
        "Pictures of result A:", "Pictures of result B:",
    ]  # fmt: skip
    assert {(v.first, v.second) for v in verdicts} == {
        (a, b) for a, b in product(range(6), repeat=2) if a != b and a // 3 == b // 3
    }
    first = next(v for v in verdicts if (v.first, v.second) == (0, 1))
    assert first.ruling.parts == {"shape": 0, "surface": 0.5}
    found = ratings(results, verdicts, ["shape", "surface"])
    assert found["shape"].wins.tolist() == [[0, 0, 0], [4, 0, 4], [4, 0, 0]]
    assert found["shape"].why
    assert np.isnan(found["shape"].values).all()
    assert found["surface"].wins.tolist() == [[0, 4, 4], [4, 0, 4], [4, 4, 0]], "a tie is a win of both"
    assert found["surface"].values == pytest.approx([0, 0, 0], abs=1e-6)
    kept = [json.loads(p.read_text()) for p in (tmp_path / "cache" / "judgements").glob("??/*.json")]
    assert len(kept) == 12
    assert not any("base64" in json.dumps(k) for k in kept), "pictures are kept by their digest"


def test_a_judge_that_says_first_wins_nothing_for_anybody(tmp_path):
    results = pictures(tmp_path, {"dim": 10, "bright": 200})
    with serving(lambda n, body: "shape: A\nsurface: unclear") as server:  # noqa: SIM117
        with Endpoint(server.url, "eyes", clock=Quick()) as endpoint:
            judge = Judge(endpoint, "images", criteria=TWO)
            found = ratings(results, compare(judge, results, repeats=2), ["shape", "surface"])
    assert found["shape"].values == pytest.approx([0, 0], abs=1e-6)
    assert (found["shape"].unread, found["surface"].unread) == (0, 4)
    assert found["surface"].wins.sum() == 0
    assert server.calls == 4


def test_what_is_no_picture_or_lies_elsewhere_is_refused(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "text.png").write_text("hello")
    outside = picture(tmp_path / "outside.png", 3)
    (folder / "link.png").symlink_to(outside)
    assert image_part(outside)["image_url"]["url"].startswith("data:image/png")
    for path in (outside, folder / ".." / "outside.png", folder / "link.png"):
        with pytest.raises(InputError, match="outside"):
            image_part(path, within=folder)
    with pytest.raises(InputError, match="no picture"):
        image_part(folder / "text.png", within=folder)
    with pytest.raises(InputError, match="no such file"):
        image_part(folder / "none.png", within=folder)
    assert image_part(picture(folder / "a.jpg", 1))["image_url"]["url"].startswith("data:image/jpeg")
    assert image_part(picture(folder / "a.webp", 1))["image_url"]["url"].startswith("data:image/webp")
    assert image_part(picture(folder / "a.gif", 1))["image_url"]["url"].startswith("data:image/gif")


def test_what_cannot_be_compared_is_told(tmp_path):
    with Endpoint("http://127.0.0.1:1/v1", "eyes") as endpoint:
        with pytest.raises(InputError, match="no criteria"):
            Judge(endpoint, "images")
        judge = Judge(endpoint, "images", criteria=CRITERIA)
        with pytest.raises(InputError, match="nothing to compare"):
            compare(judge, pictures(tmp_path, {"one": 1}, ("a", "b")))
        with pytest.raises(InputError, match="no picture for"):
            compare(judge, [Shown("a", "one", ()), Shown("a", "two", ())])
        with pytest.raises(InputError, match="take images"):
            compare(Judge(endpoint, "pairwise"), [])


def test_the_command_judges_pictures_that_lie_beside_the_data(tmp_path, capsys):
    from boresight.cli import main

    rows = []
    for name, shade in (("dim", 10), ("bright", 200)):
        rows.append([f"{name}-{side}.png" for side in range(2)])
        for file in rows[-1]:
            picture(tmp_path / file, shade)
    row = {"prompt": "a cup", "chosen": "\n".join(rows[0]), "rejected": "\n".join(rows[1])}
    row |= {"chosen_model": "dim", "rejected_model": "bright"}
    data, out = tmp_path / "renders.jsonl", tmp_path / "votes.jsonl"
    data.write_text(json.dumps(row) + "\n")
    with serving(brighter) as server:
        arguments = ["judge", str(data), "--endpoint", server.url, "--model", "eyes", "--template", "images", "--quiet"]
        arguments += ["--criterion", "shape: is it clean", "--criterion", "surface: is it sharp", "--out", str(out)]
        assert main([*arguments, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["counts"]["read"] == 2
        assert main([*arguments, "--criterion", "shape: again"]) == 2
        row["rejected"] = "../renders.jsonl"
        data.write_text(json.dumps(row) + "\n")
        assert main(arguments) == 2
        assert "outside" in capsys.readouterr().err
        assert server.calls == 2
    votes = {e.domain: e for e in bs.read(out)}
    assert set(votes) == {"shape", "surface"}
    assert [(p.chosen, p.tie, p.annotator) for p in votes["shape"].pairs] == [
        (1, False, "eyes (images)"), (1, False, "eyes (images), swapped"),
    ]  # fmt: skip
    assert all(p.tie for p in votes["surface"].pairs)


# Ratings


def test_two_systems_in_closed_form():
    values, why = elo(np.array([[0, 30], [10, 0]]))
    assert why == ""
    assert values == pytest.approx([200 * np.log10(3), -200 * np.log10(3)], abs=1e-4)


@given(st.lists(st.integers(1, 9), min_size=12, max_size=12))
@settings(max_examples=25)
def test_ratings_minimise_the_loss_of_the_paper(counts):
    from scipy.optimize import minimize

    wins = np.zeros((4, 4))
    wins[~np.eye(4, dtype=bool)] = counts

    def loss(s):
        return sum(
            wins[i, j] * np.log1p(10 ** ((s[j] - s[i]) / 400)) for i in range(4) for j in range(4) if i != j
        )  # fmt: skip

    values, _ = elo(wins)
    assert values.mean() == pytest.approx(0, abs=1e-9)
    found = minimize(loss, np.zeros(4), tol=1e-12).x
    assert values == pytest.approx(found - found.mean(), abs=0.05)
    assert loss(values) <= loss(found) + 1e-9


def test_systems_that_cannot_be_rated():
    for wins in ([[0, 3], [0, 0]], [[0, 1, 0], [1, 0, 0], [0, 0, 0]], [[0, 1, 1], [1, 0, 1], [0, 0, 0]]):
        values, why = elo(np.array(wins))
        assert np.isnan(values).all()
        assert why
    assert elo(np.zeros((1, 1)))[0].tolist() == [0]
    for bad in (np.zeros((2, 3)), np.array([[0, -1], [1, 0]]), np.array([[0, np.inf], [1, 0]])):
        with pytest.raises(ValueError, match="square"):
            elo(bad)


# Training a validator


def test_agreement_of_grades_with_known_degrees():
    assert agreement(1, 1, 1, 4) == agreement(4, 4, 1, 4) == agreement(2, 2, 1, 4) == 1
    assert agreement(4, 1, 4, 4) == pytest.approx(1 - (1 + 1 + 4) / 6), "the worst there is"
    assert agreement(3, 2, 1, 4) == pytest.approx(1 - (0 + 1 / 9 + 1 / 9) / 6)
    assert agreement(2, 3, 2, 4) == pytest.approx(1 - (1 / 9 + 1 / 9 + 0) / 6)
    for bad in ((0, 1, 1, 4), (1, 5, 1, 4), (1, 1, 0, 4), (1, 1, 1, 1)):
        with pytest.raises(ValueError, match="must lie in"):
            agreement(*bad)


WORDS = "alpha bravo charlie delta echo foxtrot golf hotel india"


def texts(n: int) -> list[Example]:
    return [Example(f"source {k}", (Response(f"{WORDS} of {k}"),), id=f"t{k}", pairs=()) for k in range(n)]


def drop(example: Example, level: int) -> Example:
    text = degraded(example.responses[0].text, 0.9 * (level - 1) / 3, {}, 1)
    return replace(example, responses=(Response(text),))


def counting(n, body) -> str:
    """A validator that counts the words that are left."""
    text = body["messages"][-1]["content"]
    left = sum(word in text for word in WORDS.split())
    return f"missing words\nScore: {1 + round((9 - left) / 3)}"


def test_what_a_validator_grades_rightly_is_kept_to_train_it():
    with serving(counting) as server, Endpoint(server.url, "check", clock=Quick()) as endpoint:
        judge = Judge(endpoint, "validate")
        found = validate(judge, texts(8), drop)
    assert server.calls == 14, "of two texts the level is 1: the degraded one is the clean one, and asked about once"
    assert len(found.rows) == len([a for a in found.agreements if a >= 0.95]) == 8
    row = found.rows[3]
    assert row.id == "t3~4"
    assert [m.role for m in row.prompt] == ["system", "user"]
    assert "source 3" in row.prompt[-1].content
    assert row.responses[0].text == "missing words\nScore: 4"
    assert (row.pairs, row.scores, row.labels) == ((), (), ())


def test_a_validator_that_sees_nothing_keeps_next_to_nothing_and_unread_grades_are_counted():
    with serving(lambda n, body: "no errors\nScore: 1") as server, Endpoint(server.url, "c", clock=Quick()) as endpoint:
        found = validate(Judge(endpoint, "validate"), texts(4), drop)
    assert [row.id for row in found.rows] == ["t0~1", "t1~2"], "as the released threshold has it: one off, near the end"
    assert found.agreements == pytest.approx([1, 1 - 2 / 54, 1 - 8 / 54, 1 - 2 / 6])
    with serving(lambda n, body: "hm") as server, Endpoint(server.url, "d", clock=Quick()) as endpoint:
        found = validate(Judge(endpoint, "validate"), texts(4), drop)
    assert found.rows == found.agreements == ()
    assert found.unread == {"no score": 4}


def test_what_a_validator_cannot_be_trained_on_is_told():
    with Endpoint("http://127.0.0.1:1/v1", "c") as endpoint:
        two = Example("s", (Response("a"), Response("b")), pairs=(Pair(0, 1),))
        for examples in ([], [two]):
            with pytest.raises(InputError, match="exactly one"):
                validate(Judge(endpoint, "validate"), examples, drop)
        with pytest.raises(InputError, match="threshold"):
            validate(Judge(endpoint, "validate"), texts(1), drop, threshold=2)
        with pytest.raises(InputError, match="validate"):
            validate(Judge(endpoint, "pairwise"), texts(1), drop)
