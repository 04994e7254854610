from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from boresight.errors import InputError
from boresight.training import trackers as room
from boresight.training.redact import HIDDEN, without_secrets
from boresight.training.trackers import FileTracker, check_names, read_metrics, trackers

EXACT = {"a": 0.1, "b": 1 / 3, "c": 1e-300, "d": 123456789.123456789, "e": math.pi, "f": -0.0, "g": 5e-324}
ODD = {"nan": math.nan, "inf": math.inf, "minus": -math.inf}


def write(folder: Path, steps: range, resume_step: int = 0) -> None:
    for tracker in trackers([], folder, {}, resume_step):
        for step in steps:
            tracker.log(step, {"loss": 1 / (step + 1)})
            tracker.text(step, "sample/0", f"text of {step}")
        tracker.close()


def test_floats_come_back_bit_for_bit(tmp_path: Path) -> None:
    (tracker,) = trackers(["metrics"], tmp_path, {})
    tracker.log(3, EXACT | ODD)
    tracker.close()
    (row,) = read_metrics(tmp_path)
    assert row.pop("step") == 3
    assert all(row[k].hex() == v.hex() for k, v in EXACT.items())
    assert math.isnan(row["nan"])
    assert (row["inf"], row["minus"]) == (math.inf, -math.inf)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_every_line_is_there_before_the_next_is_written(tmp_path: Path) -> None:
    (tracker,) = trackers([], tmp_path, {})
    for step in range(3):
        tracker.log(step, {"loss": 0.5})
        tracker.text(step, "t", "words")
        assert len(read_metrics(tmp_path)) == step + 1
        assert len((tmp_path / "samples.jsonl").read_text().splitlines()) == step + 1
    tracker.close()


def test_texts_stay_on_one_line_whatever_they_hold(tmp_path: Path) -> None:
    (tracker,) = trackers([], tmp_path, {})
    text = 'a\nb\r\n"c" \u2028 é 漢 <script>\x00'
    tracker.text(7, "sample/0", text)
    tracker.close()
    (line,) = (tmp_path / "samples.jsonl").read_bytes().split(b"\n")[:-1]
    assert json.loads(line) == {"step": 7, "tag": "sample/0", "text": text}


def test_a_resumed_run_writes_the_files_of_one_that_was_never_interrupted(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    write(whole, range(1, 9))
    write(broken, range(1, 7))
    with (broken / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')  # the power went
    write(broken, range(5, 9), resume_step=4)
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(p.name for p in broken.iterdir()) == ["metrics.jsonl", "samples.jsonl"]


def test_lines_of_the_resumed_step_itself_stay(tmp_path: Path) -> None:
    """An evaluation is logged at the step after which the checkpoint was written."""
    (tracker,) = trackers([], tmp_path, {})
    for step, name in ((4, "loss"), (4, "eval_loss"), (5, "loss")):
        tracker.log(step, {name: 1.0})
    tracker.close()
    trackers([], tmp_path, {}, resume_step=4)[0].close()
    assert read_metrics(tmp_path) == [{"step": 4, "loss": 1.0}, {"step": 4, "eval_loss": 1.0}]


def test_from_the_start_is_from_an_empty_file(tmp_path: Path) -> None:
    """A run that broke off before its first checkpoint starts again: its lines would be there twice."""
    write(tmp_path, range(3))
    write(tmp_path, range(2))
    assert [r["step"] for r in read_metrics(tmp_path)] == [0, 1]


def test_a_last_line_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, range(2))
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 2, "loss": 0.25\xc3')
    assert [r["step"] for r in read_metrics(tmp_path)] == [0, 1]


def test_a_line_that_no_run_wrote_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    write(tmp_path, range(2))
    path = tmp_path / "metrics.jsonl"
    for bad in ("what?\n", "[1]\n", '{"loss": 1}\n'):
        path.write_text('{"step": 0}\n' + bad)
        with pytest.raises(InputError, match=r"metrics\.jsonl: a line"):
            trackers([], tmp_path, {}, resume_step=1)
        assert path.read_text() == '{"step": 0}\n' + bad


def test_there_must_be_a_run_to_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metrics\.jsonl does not exist"):
        read_metrics(tmp_path)


def test_tensorboard_gets_the_numbers_and_hides_what_a_resumed_run_wrote_twice(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, last, resume in ((1, 6, 0), (4, 8, 3)):
        opened = trackers(["tensorboard", "metrics", "tensorboard"], tmp_path, {"lr": 0.5, "hf_token": "abc"}, resume)
        assert len(opened) == 2
        for tracker in opened:
            for step in range(first, last):
                tracker.log(step, {"loss": 0.5 * step + resume})
            tracker.text(last, "sample/0", "<script>alert(1)</script>\n# no heading")
            tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = [(e.step, e.value) for e in events.Scalars("loss")]
    assert found == [(s, 0.5 * s + (3 if s >= 4 else 0)) for s in range(1, 8)]
    tags = events.Tags()["tensors"]
    shown = {t: events.Tensors(t)[-1].tensor_proto.string_val[0].decode() for t in tags}
    assert shown["sample/0/text_summary"] == "    <script>alert(1)</script>\n    # no heading"
    assert HIDDEN in shown["config/text_summary"]
    assert "abc" not in shown["config/text_summary"]
    assert [r["loss"] for r in read_metrics(tmp_path)] == [v for _, v in found]


class FakeService:
    """Stands for wandb and trackio alike: notes what it is called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.id = "run-7"

    def init(self, **options: Any) -> FakeService:
        self.calls.append(("init", options))
        print("a banner")
        return self

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        self.calls.append(("log", (metrics, step)))

    def define_metric(self, *args: Any, **options: Any) -> None:
        self.calls.append(("define_metric", (args, options)))

    def finish(self) -> None:
        self.calls.append(("finish", None))

    def Html(self, text: str, inject: bool = True) -> tuple[str, str]:
        return ("html", text)

    def Markdown(self, text: str) -> tuple[str, str]:
        return ("markdown", text)

    def named(self, name: str) -> list[Any]:
        return [value for called, value in self.calls if called == name]


def test_wandb_goes_on_under_its_id_with_steps_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeService()
    monkeypatch.setitem(sys.modules, "wandb", fake)  # type: ignore[arg-type]
    folder = tmp_path / "my-run"
    for resume in (0, 2):
        _, tracker = trackers(["wandb"], folder, {"lr": 1e-6, "api_key": "k"}, resume)
        tracker.log(resume + 1, {"loss": 0.5})
        tracker.text(resume + 1, "sample/0", "<b>\nx")
        tracker.close()
    first, second = fake.named("init")
    assert (first["name"], first["id"], first["resume"]) == ("my-run", None, None)
    assert (second["id"], second["resume"]) == ("run-7", "allow")
    assert first["config"] == {"lr": 1e-6, "api_key": HIDDEN}
    logged = fake.named("log")
    assert logged[0] == ({"step": 1, "loss": 0.5}, None)
    assert logged[1] == ({"step": 1, "sample/0": ("html", "<pre>&lt;b&gt;\nx</pre>")}, None)
    assert (("*",), {"step_metric": "step"}) in fake.named("define_metric")
    assert len(fake.named("finish")) == 2
    assert capsys.readouterr().out == ""  # stdout is for results


def test_trackio_goes_on_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeService()
    monkeypatch.setitem(sys.modules, "trackio", fake)  # type: ignore[arg-type]
    for resume in (0, 2):
        _, tracker = trackers(["trackio"], tmp_path / "my-run", {"password": "k"}, resume)
        tracker.log(resume + 1, {"loss": 0.5})
        tracker.text(resume + 1, "sample/0", "# one\n<b>")
        tracker.close()
    assert [o["resume"] for o in fake.named("init")] == ["never", "allow"]
    assert all(o["name"] == "my-run" and o["config"] == {"password": HIDDEN} for o in fake.named("init"))
    assert fake.named("log")[:2] == [
        ({"loss": 0.5}, 1),
        ({"sample/0": ("markdown", "    # one\n    <b>")}, 1),
    ]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["wandb", "trackio", "tensorboard"])
def test_a_package_that_is_not_there_is_named_with_its_mend(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if name == "tensorboard" else name, None)
    with pytest.raises(InputError, match=f"tracker {name} needs a package") as caught:
        trackers([name], tmp_path / "run", {})
    assert "pip install" in caught.value.mend
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_nothing_heavy_is_imported_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("wandb", "trackio", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    (tracker,) = trackers([], tmp_path, {})
    tracker.close()


def test_a_service_that_cannot_start_says_so_without_its_key_and_closes_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**options: Any) -> None:
        raise RuntimeError("401 for https://user:hunter2secret@api.example with api_key=0123456789")

    closed: list[bool] = []
    other = SimpleNamespace(close=lambda: closed.append(True))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=fail))  # type: ignore[arg-type]
    monkeypatch.setitem(room.SERVICES, "trackio", lambda *_: other)  # type: ignore[arg-type,return-value]
    with pytest.raises(InputError, match="wandb could not start: 401") as caught:
        trackers(["trackio", "wandb"], tmp_path, {})
    assert closed == [True]
    assert "WANDB_MODE=offline" in caught.value.mend
    assert "hunter2" not in str(caught.value)
    assert "0123456789" not in str(caught.value)


def test_an_unknown_name_is_told_before_anything_happens(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown tracker 'tensorbord'") as caught:
        check_names(["metrics", "tensorbord"])
    assert "tensorboard" in caught.value.mend
    assert check_names(["wandb", "metrics", "wandb", "tensorboard"]) == ["wandb", "tensorboard"]
    with pytest.raises(InputError):
        trackers(["nope"], tmp_path / "run", {})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "key",
    ["hf_token", "HF_TOKEN", "token", "api_key", "apiKey", "OPENAI_API_KEY", "apikey", "password", "db-password",
     "client_secret", "access.token", "aws_secret_access_key", "Authorization", "accessToken", "private_key"],
)  # fmt: skip
def test_keys_named_like_secrets_are_hidden(key: str) -> None:
    assert without_secrets({"a": [{key: "x"}]}) == {"a": [{key: HIDDEN}]}
    assert without_secrets({key: {"deep": "x"}}) == {key: HIDDEN}
    assert without_secrets({key: 12345}) == {key: HIDDEN}
    assert without_secrets({key: None}) == {key: None}


@pytest.mark.parametrize(
    "key",
    ["max_tokens", "sample_tokens", "tokenizer", "eos_token", "pad_token", "eos_token_id", "chosen_logp_token",
     "keep", "key", "keys", "monkey", "keyboard", "secretary", "per_token", "sort_key", "author"],
)  # fmt: skip
def test_names_that_only_sound_like_secrets_stay(key: str) -> None:
    assert without_secrets({key: "<eos>"}) == {key: "<eos>"}


def test_the_key_above_counts_as_part_of_the_name() -> None:
    words = {"bos": {"token": "<s>"}, "end_of_turn": {"token": "</s>", "id": 2}, "eos": [{"token": "</s>"}]}
    assert without_secrets(words) == words
    assert without_secrets({"hub": {"token": "x"}, "api": {"key": "y"}}) == {
        "hub": {"token": HIDDEN},
        "api": {"key": HIDDEN},
    }


@pytest.mark.parametrize(
    "text",
    ["hf_" + "a1B2" * 8, "sk-proj-" + "x" * 30, "ghp_" + "a" * 36, "AKIA" + "ABCDEFGH12345678", "xoxb-1234567890-abc",
     "Bearer abcdefgh12345678", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghij"],
)  # fmt: skip
def test_known_kinds_of_keys_are_hidden_wherever_they_stand(text: str) -> None:
    assert without_secrets({"note": f"use {text} here"}) == {"note": f"use {HIDDEN} here"}
    assert without_secrets([(f"{text}",)]) == [[HIDDEN]]


def test_urls_lose_their_password_and_query_key() -> None:
    assert without_secrets("https://bob:pw@host/x") == f"https://{HIDDEN}@host/x"
    assert without_secrets("https://host/x?token=abc&y=1") == f"https://host/x?{HIDDEN}&y=1"


def test_plain_values_pass_unchanged() -> None:
    plain = {"lr": 1e-6, "n": 3, "on": True, "none": None, "path": "/data/skills.jsonl", "nested": {"x": [1, "b"]}}
    assert without_secrets(plain) == plain


def test_half_a_surrogate_pair_does_not_end_a_run(tmp_path: Path) -> None:
    tracker = FileTracker(tmp_path)
    tracker.text(1, "sample/0", "left \ud800 right \U0001f600")
    tracker.close()
    line = json.loads((tmp_path / "samples.jsonl").read_text(encoding="utf-8"))
    assert line["text"] == "left \ud800 right \U0001f600"
