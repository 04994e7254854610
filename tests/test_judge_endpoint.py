"""Endpoints: what is asked, how often, what is kept, what is told; and the key, which is nowhere."""

from __future__ import annotations

import json
import logging
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.errors import InputError, RunError
from boresight.judging import endpoint as module
from boresight.judging.endpoint import PATIENCE, Endpoint, OutOfBudget, Question
from boresight.judging.endpoint_cache import Cache
from boresight.judging.endpoint_retry import LONGEST, Budget, backoff, retry_after
from boresight.judging.endpoint_wire import Settings, address, estimate, key_for, read_reply
from judge_server import Quick, Said, serving

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch, tmp_path):
    for name in ("BORESIGHT_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path / "cache"))


def question(text: str = "which?", **own) -> Question:
    return Question([{"role": "user", "content": text}], **own)


def endpoint(server, **own) -> Endpoint:
    return Endpoint(server.url, "tiny", **({"clock": Quick(), "timeout": 30} | own))


def test_what_is_sent_and_what_comes_back():
    with serving(lambda n, body: Said("Verdict: A", usage=(31, 7))) as server, endpoint(server) as asked:
        answer = asked.ask(question("one", settings=Settings(0.5, 20, top_logprobs=3, seed=4, extra={"top_p": 0.9})))
    assert server.bodies == [
        {
            "model": "tiny", "messages": [{"role": "user", "content": "one"}], "temperature": 0.5, "max_tokens": 20,
            "logprobs": True, "top_logprobs": 3, "seed": 4, "top_p": 0.9,
        }
    ]  # fmt: skip
    assert server.headers[0]["path"] == "/v1/chat/completions"
    assert "authorization" not in server.headers[0]
    assert (answer.text, answer.finish, answer.served_by, answer.calls) == ("Verdict: A", "stop", "scripted-1", 1)
    assert (answer.prompt_tokens, answer.completion_tokens) == (31, 7)
    assert (asked.budget.called, asked.budget.spent) == (1, 38)


def test_a_setting_of_null_takes_ours_away():
    assert Settings(extra={"max_tokens": None, "max_completion_tokens": 9}).request() == {
        "temperature": 0.0,
        "max_completion_tokens": 9,
    }
    with pytest.raises(InputError, match="messages"):
        Settings(extra={"messages": []})


# Failures that pass


@pytest.mark.parametrize(
    "fault",
    [
        Said(close=True),
        Said(body=b"<html>no</html>"),
        Said(body=b"{}"),
        Said(body=b'{"choices": [{"message": "A"}]}'),
        Said(body=b"[" * 100_000),
        Said(body=b"\xff\xfe"),
        *(Said(status=s, body=b"later") for s in (408, 409, 425, 429, 500, 502, 503, 529)),
    ],
)
def test_what_may_pass_is_asked_again(fault):
    with serving(lambda n, body: fault if n < 2 else "yes") as server, endpoint(server) as asked:
        answer = asked.ask(question())
        assert (answer.text, answer.calls, server.calls) == ("yes", 3, 3)
        assert asked.clock.slept == [backoff(0, 0.5), backoff(1, 0.5)] == [0.375, 0.75]


def test_a_server_that_is_silent_or_drips_is_left_after_the_timeout():
    for fault in (Said("late", pause=30), Said("slow", drip=0.02)):
        with serving(lambda n, body, fault=fault: fault if n == 0 else "yes") as server:  # noqa: SIM117
            with endpoint(server, timeout=0.6, retries=9) as asked:
                answer = asked.ask(question(str(fault.drip)))
                assert answer.text == "yes"
                assert answer.calls >= 2, "more only where the machine is too busy to answer in time"


def test_after_the_last_repetition_the_error_is_told_and_nothing_is_kept():
    with serving(lambda n, body: Said(status=503, body=b"try\x1b[31m later")) as server:
        with endpoint(server, retries=2) as asked:
            answer = asked.ask(question())
            assert (answer.text, answer.calls, server.calls) == (None, 3, 3)
            assert answer.error == "status 503: try\\u001b[31m later"
        with endpoint(server, retries=0) as asked:
            assert asked.ask(question()).calls == 1
        assert server.calls == 4, "asked anew, since a failure is not kept"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_question_that_is_refused_is_not_repeated(status):
    with serving(lambda n, body: Said(status=status, body=b"too long")) as server, endpoint(server) as asked:
        answer = asked.ask(question())
    assert (answer.error, server.calls) == (f"status {status}: too long", 1)


def test_a_flood_is_cut_off_and_not_asked_for_again(monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 1 << 17)
    with serving(lambda n, body: Said("x", flood=1 << 24)) as server, endpoint(server) as asked:
        answer = asked.ask(question())
    assert (server.calls, answer.text) == (1, None)
    assert "more than" in answer.error


def test_retry_after_is_waited_for_by_all():
    limited = Said(status=429, headers={"Retry-After": "7"}, body=b"slow down")
    with serving(lambda n, body: limited if n == 0 else "yes") as server, endpoint(server, concurrency=1) as asked:
        answers = asked.ask_all([question("a"), question("b")])
        assert [a.text for a in answers] == ["yes", "yes"]
        assert server.calls == 3
        assert sum(asked.clock.slept) == 7


def test_a_pause_that_is_too_long_is_not_waited_for():
    limited = Said(status=429, headers={"Retry-After": "86400"})
    with serving(lambda n, body: limited) as server, endpoint(server) as asked:
        answer = asked.ask(question())
    assert server.calls == 1
    assert "86400 s" in answer.error


def test_retry_after_in_both_forms():
    assert retry_after("12", 0) == 12
    assert retry_after("Tue, 14 Nov 2023 22:13:50 GMT", 1_700_000_000) == 30  # 22:13:20 is that moment
    assert retry_after("Tue, 14 Nov 2023 22:13:00 GMT", 1_700_000_000) == 0
    for nothing in (None, "", "soon", "-5", "1e9", "9" * 40, "Tue, 99 Nov 2023 22:13:50 GMT", "²"):
        assert retry_after(nothing, 0) is None


@given(st.text(max_size=60))
@settings(max_examples=200)
def test_any_retry_after_is_a_pause_or_none(header):
    found = retry_after(header, 1_700_000_000)
    assert found is None or found >= 0


def test_backoff_doubles_up_to_a_bound_and_spreads():
    assert [backoff(k, 1.0) for k in range(4)] == [0.5, 1.0, 2.0, 4.0]
    assert backoff(3, 0.0) == 2.0
    assert backoff(10**6, 1.0) == LONGEST


# Failures that stay


@pytest.mark.parametrize(("status", "words"), [(401, "key"), (403, "key"), (404, "tiny"), (307, "elsewhere")])
def test_what_no_question_can_mend_ends_the_run(status, words):
    with serving(lambda n, body: Said(status=status, headers={"Location": "http://127.0.0.1:1/"})) as server:
        with endpoint(server, concurrency=1) as asked, pytest.raises(InputError, match=words):
            asked.ask_all([question(str(k)) for k in range(20)])
        assert server.calls == 1


def test_of_many_at_once_the_one_that_ends_the_run_is_told():
    for _ in range(10):
        with serving(lambda n, body: Said(status=401)) as server, endpoint(server, concurrency=4, cache=False) as asked:
            with pytest.raises(InputError, match="key"):
                asked.ask_all([question(str(k)) for k in range(20)])
            assert server.calls <= 4
            with pytest.raises(InputError, match="key"):
                asked.ask(question("again"))


def test_a_server_that_never_answers_is_given_up():
    with serving(lambda n, body: Said(status=400, body=b"no such setting")) as server:
        with endpoint(server, concurrency=1) as asked, pytest.raises(RunError, match="no such setting"):
            asked.ask_all([question(str(k)) for k in range(50)])
        assert server.calls == PATIENCE


def test_nobody_listens():
    with serving(lambda n, body: "yes") as server:
        url = server.url
    with Endpoint(url, "tiny", clock=Quick(), retries=1) as asked:
        answer = asked.ask(question())
    assert answer.calls == 2
    assert "ConnectError" in answer.error


def test_no_more_at_once_than_asked_for():
    full = threading.Event()

    def script(n, body):
        if server.now >= 3:
            full.set()
        full.wait(20)
        return "yes"

    with serving(script) as server, endpoint(server, concurrency=3) as asked:
        assert len(asked.ask_all([question(str(k)) for k in range(12)])) == 12
    assert server.most == 3


# Cache, budget, resumption


def test_what_was_answered_is_not_asked_again_and_what_differs_is():
    with serving(lambda n, body: f"answer {n}") as server:
        with endpoint(server) as asked:
            assert asked.ask(question()).text == "answer 0"
        with endpoint(server) as asked:
            again = asked.ask(question())
            assert (again.text, again.cached, again.calls, again.prompt_tokens) == ("answer 0", True, 0, 10)
            assert (asked.budget.called, server.calls) == (0, 1)
            others = [
                question("else"), question(repeat=1), question(settings=Settings(temperature=1.0)),
                question(settings=Settings(max_tokens=9)), question(settings=Settings(seed=1)),
                Question([{"role": "system", "content": "which?"}]),
            ]  # fmt: skip
            assert [asked.ask(q).text for q in others] == [f"answer {k}" for k in range(1, 7)]
        with Endpoint(server.url, "other", clock=Quick()) as asked:
            assert asked.ask(question()).text == "answer 7"
        with endpoint(server, cache=False) as asked:
            assert [asked.ask(question()).text for _ in range(2)] == ["answer 8", "answer 9"]


def test_questions_that_are_alike_are_asked_once():
    with serving(lambda n, body: Said(f"answer {n}", pause=0.02)) as server, endpoint(server, cache=False) as asked:
        told = []
        answers = asked.ask_all([question(), question("else"), question(), question(repeat=1)], told.append)
    assert server.calls == 3
    assert answers[0] is answers[2]
    assert len({a.text for a in answers}) == 3
    assert sum(told) == 4


def test_tokens_with_their_log_probs_are_kept_too():
    tokens = [
        {
            "token": "A",
            "logprob": -0.1,
            "top_logprobs": [{"token": "A", "logprob": -0.1}, {"token": "B", "logprob": -3}],
        }
    ]
    with serving(lambda n, body: Said("A", logprobs=tokens)) as server, endpoint(server) as asked:
        first, second = asked.ask(question()), asked.ask(question())
    assert first.tokens == second.tokens
    assert first.tokens[0].top == (("A", -0.1), ("B", -3.0))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": "other"}', b"\xff", b'{"tokens": 3}'])
def test_a_damaged_file_of_the_cache_is_as_none(tmp_path, content):
    with serving(lambda n, body: f"answer {n}") as server, endpoint(server, cache=tmp_path) as asked:
        asked.ask(question())
        path = next(tmp_path.glob("??/*.json"))
        key = path.stem.encode()
        path.write_bytes(content.replace(b'{"tokens"', b'{"key": "' + key + b'", "tokens"'))
        assert asked.ask(question()).text == "answer 1"
        assert asked.ask(question()).text == "answer 1"
        assert list(tmp_path.glob("??/.*")) == []


def test_the_budget_of_calls_counts_repetitions_and_stops_cleanly():
    with serving(lambda n, body: Said(status=500) if n == 1 else f"answer {n}") as server:
        with endpoint(server, budget=Budget(calls=4), concurrency=1) as asked:
            answers = asked.ask_all([question(str(k)) for k in range(6)])
        assert server.calls == 4
        assert [a and a.text for a in answers] == ["answer 0", "answer 2", "answer 3", None, None, None]
        with endpoint(server, budget=Budget(calls=0)) as asked:
            kept = asked.ask_all([question(str(k)) for k in range(6)])
            assert [a and a.text for a in kept] == [a and a.text for a in answers], "what is kept costs nothing"
        with endpoint(server, budget=Budget(calls=99)) as asked:
            assert [a.cached for a in asked.ask_all([question(str(k)) for k in range(6)])] == [True] * 3 + [False] * 3
        assert server.calls == 7


def test_the_budget_of_tokens_is_kept_with_many_at_once():
    about = estimate(question("0").messages, Settings())
    bound = 2 * about + 15
    with serving(lambda n, body: Said("yes", usage=(10, 2), pause=0.01)) as server:
        budget = Budget(tokens=bound)
        with endpoint(server, budget=budget, concurrency=4) as asked:
            answers = asked.ask_all([question(str(k)) for k in range(40)])
    assert sum(a is not None for a in answers) == server.calls
    assert budget.spent == 12 * server.calls <= bound
    assert 2 <= server.calls < 40
    assert budget._reserved == 0


def test_where_no_usage_is_told_the_estimate_is_spent():
    with serving(lambda n, body: Said("yes", usage=None)) as server, endpoint(server) as asked:
        answer = asked.ask(question("0"))
    assert answer.prompt_tokens is None
    assert asked.budget.spent == estimate(question("0").messages, Settings())


def test_a_budget_is_out_of_reach_once_it_refused():
    budget = Budget(tokens=10)
    assert not budget.take(11)
    assert not budget.take(1)
    with pytest.raises(InputError):
        Budget(calls=-1)
    with serving(lambda n, body: "x") as server, endpoint(server, budget=Budget(calls=0)) as asked:
        with pytest.raises(OutOfBudget):
            asked.ask(question())
        assert server.calls == 0


def test_after_an_interruption_the_same_call_goes_on_where_it_was():
    class Enough(BaseException):
        pass

    seen, three = [], threading.Event()

    def advance(n: int) -> None:
        seen.append(n)
        if len(seen) == 3:
            three.set()
            raise Enough

    def script(n, body):
        if n == 3:
            three.wait(20)
        return Said("to " + body["messages"][0]["content"], pause=0.2 if 3 <= n < 6 else 0)

    asked_for = [question(str(k)) for k in range(10)]
    with serving(script) as server:
        with endpoint(server, concurrency=1) as asked, pytest.raises(Enough):
            asked.ask_all(asked_for, advance)
        before = server.calls
        assert 3 <= before < 10
        with endpoint(server, concurrency=2) as asked:
            assert [a.text for a in asked.ask_all(asked_for)] == [f"to {k}" for k in range(10)]
        assert server.calls == 10, "each question was asked once"
    assert threading.active_count() < 20


def test_the_secret_of_a_folder_is_made_once_and_for_its_owner(tmp_path):
    one, two = Cache(tmp_path / "a").secret(), Cache(tmp_path / "a").secret()
    assert one == two
    assert len(one) == 32
    assert Cache(tmp_path / "b").secret() != one
    assert (tmp_path / "a" / "secret").stat().st_mode & 0o077 == 0
    (tmp_path / "a" / "secret").write_bytes(b"cut")
    assert len(Cache(tmp_path / "a").secret()) == 32


# The key


def test_the_key_goes_to_the_server_and_nowhere_else(monkeypatch, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("BORESIGHT_API_KEY", KEY)
    top = [{"token": KEY, "logprob": -1.0}]
    replies = {
        "ok": Said(f"your key is {KEY}", logprobs=[{"token": KEY, "logprob": 0.0, "top_logprobs": top}]),
        "no json": Said(body=f"bad key {KEY}".encode()),
        "no choice": Said(body=json.dumps({"model": KEY}).encode()),
        "refused": Said(status=400, body=KEY.encode()),
        "unknown": Said(status=401, body=f"Incorrect key {KEY}".encode()),
    }
    told = []
    with serving(lambda n, body: replies[body["messages"][0]["content"]]) as server:
        with endpoint(server, retries=0, cache=tmp_path / "kept") as asked:
            told.append(repr(asked))
            for name in list(replies)[:-1]:
                told.append(repr(asked.ask(question(name))))
            with pytest.raises(InputError) as caught:
                asked.ask(question("unknown"))
            told += [str(caught.value), repr(caught.value.__context__), repr(caught.value.__cause__)]
        assert {h["authorization"] for h in server.headers} == {f"Bearer {KEY}"}
        assert server.calls == 5
    written = [p.read_bytes() for p in (tmp_path / "kept").rglob("*") if p.is_file()]
    assert len(written) == 1
    assert "<hidden>" in told[1]
    assert not any(KEY in text for text in (*told, caplog.text, *capfd.readouterr()))
    assert not any(KEY.encode() in content for content in written)


def test_which_key_goes_where(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    assert key_for("https://api.openai.com/v1") == "theirs"
    assert key_for("https://openai.com.example/v1") is None
    assert key_for("https://evilopenai.com/v1") is None
    assert key_for("http://127.0.0.1:1/v1") is None
    assert key_for("https://example.org/v1", "OPENAI_API_KEY") == "theirs"
    monkeypatch.setenv("BORESIGHT_API_KEY", " ours\n")
    assert key_for("https://api.openai.com/v1") == key_for("http://localhost/v1") == key_for("http://[::1]/") == "ours"
    with pytest.raises(InputError, match="unencrypted"):
        key_for("http://example.org/v1")
    assert key_for("http://example.org/v1", "BORESIGHT_API_KEY") == "ours", "named, so meant"
    with pytest.raises(InputError, match="MISSING_KEY is not set"):
        key_for("https://example.org", "MISSING_KEY")
    monkeypatch.setenv("BORESIGHT_API_KEY", "two\r\nHeader: lines")
    with pytest.raises(InputError, match="characters") as caught:
        key_for("https://example.org")
    assert "lines" not in str(caught.value)


def test_addresses():
    assert address("http://127.0.0.1:8000/v1") == "http://127.0.0.1:8000/v1/chat/completions"
    assert address("https://a.b/v1/chat/completions/") == "https://a.b/v1/chat/completions"
    for bad in ("", "ftp://a/v1", "a.b/v1", "http://", "http://a b/", "http://a:x/", "file:///etc/passwd"):
        with pytest.raises(InputError, match="not an http"):
            address(bad)
    for bad in (f"https://me:{KEY}@a.b/v1", f"https://a.b/v1?key={KEY}", f"https://a.b/v1#{KEY}"):
        with pytest.raises(InputError, match="in the address") as caught:
            address(bad)
        assert KEY not in str(caught.value)


# Replies of any kind


def test_a_reply_without_text_is_one():
    assert read_reply(b'{"choices": [{"message": {"content": null}}]}').text is None
    parts = b'{"choices": [{"message": {"content": [{"type": "text", "text": "a"}, 3, {"text": "b"}]}}]}'
    assert read_reply(parts).text == "ab"
    assert read_reply(b'{"choices": [{"message": {"content": "\\ud800"}}]}').text == "?"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "logprobs", "top_logprobs", "token", "logprob", "usage", "text"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON, JSON, JSON)
@settings(max_examples=300)
def test_any_json_is_a_reply_or_a_value_error(message, logprobs, usage):
    value = {
        "choices": [{"message": message, "logprobs": {"content": logprobs}, "finish_reason": usage}],
        "usage": usage,
    }
    for body in (json.dumps(value).encode(), json.dumps(message).encode()):
        try:
            reply = read_reply(body, "k")
        except ValueError:
            continue
        assert reply.text is None or isinstance(reply.text, str)
        assert all(t.logprob <= 1e-3 for t in reply.tokens)
