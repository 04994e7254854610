"""Words, recipes, methods and run folders that cannot be used."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from bad_input import Case, Here, case, plain_case

# Words


plain_case("a verb that is unknown", lambda h: ["trian"], "'trian'", "did you mean train")
plain_case("a flag that is unknown", lambda h: ["train", "--modle", "x"], "--modle", "did you mean --model")
plain_case("a method that is unknown", lambda h: h.train(method="dop"), "unknown method 'dop'", "did you mean dpo")
plain_case("a hyperparameter that is unknown", lambda h: h.train(betta="1"), "'betta'", "did you mean beta")
plain_case("another method's hyperparameter", lambda h: h.train(gamma="1", method="dpo"), "'gamma'", "dpo")
plain_case("a negative beta", lambda h: h.train(beta="-0.1"), "beta", "-0.1", "boresight methods show dpo")
plain_case("a beta that is no number", lambda h: h.train(beta="nan"), "beta='nan'", "float")
plain_case("a beta that is NaN", lambda h: h.train(beta=".nan"), "beta", "nan")
plain_case("a beta that is a list", lambda h: h.train(beta="[1, 2]"), "beta=[1, 2]", "float")
plain_case("a batch of none", lambda h: h.train(batch="0"), "batch=0", "greater than or equal to 1")
plain_case("half a batch", lambda h: h.train(batch="1.5"), "batch=1.5")
plain_case("a learning rate in words", lambda h: h.train(lr="high"), "lr='high'", "valid number")
for _value in (".nan", ".inf", "-1"):
    plain_case(f"a learning rate of {_value}", lambda h, value=_value: h.train(lr=value), "lr=", "lr is: learning rate")
for _key in ("epochs", "warmup", "clip", "weight_decay", "lora_alpha"):
    plain_case(f"{_key} that is NaN", lambda h, key=_key: h.train(**{key: ".nan"}), f"{_key}=nan", f"{_key} is:")
plain_case("fewer steps than none", lambda h: h.train(max_steps="-1"), "max_steps=-1")
plain_case("epochs without end", lambda h: h.train(epochs=".inf"), "epochs=inf")
plain_case("a length of one token", lambda h: h.train(max_length="1"), "max_length=1", "greater than or equal to 2")
plain_case("a seed beyond all numbers", lambda h: h.train(seed=str(2**80)), "seed=", "seed is:")
plain_case("a batch beyond all numbers", lambda h: h.train(batch=str(2**80)), "batch=", "batch is:")
plain_case("a schedule that is unknown", lambda h: h.train(schedule="cosin"), "schedule='cosin'", "cosine")
plain_case(
    "a tracker that is unknown", lambda h: h.train(trackers="tensorbord"), "tensorbord", "did you mean tensorboard"
)
plain_case("an adapter that is unknown", lambda h: h.train(adapter="lorra"), "adapter='lorra'", "lora")
plain_case("an option given twice", lambda h: h.train("beta=1", "beta=2"), "'beta=2'", "give it once")
plain_case("an option as flag and as word", lambda h: [*h.train(), "--out", "x"], "out is given twice", "--out")
plain_case("an option without a value", lambda h: [*h.train(), "beta="], "'beta='", "beta=VALUE")
plain_case("a word that is neither", lambda h: h.train("a.yaml", "b.yaml"), "'b.yaml' is a second recipe")
plain_case("a path that is no text", lambda h: h.train(out="run\udcff"), "out=", "valid Unicode")
plain_case("a path that is empty", lambda h: h.train(data="''"), "data=", "training data")
plain_case("nothing to train", lambda h: ["train"], "a run needs method=", "dotted path")
plain_case("brackets that do not close", lambda h: [*h.train(), "beta=[1"], "'beta=[1'", "brackets")
plain_case("brackets without end", lambda h: [*h.train(), "beta=" + "[" * 3000], "beta=[", "nested too deeply")
plain_case("a number of 5,000 digits", lambda h: h.train(seed="9" * 5000), "seed=999", "too long: 5,005 characters")


# Recipes


def recipe(text: str | bytes, name: str = "recipe.yaml"):
    return lambda h: ["train", str(h.file(name, text))]


plain_case("a recipe that is missing", lambda h: ["train", str(h.folder / "no.yaml")], "no.yaml", "give a YAML file")
plain_case("a recipe that is a folder", lambda h: ["train", str(h.folder)], "cannot read the recipe", "YAML file")
plain_case("a recipe with a tab", recipe("method: dpo\n\tbeta: 1\n"), "recipe.yaml, line 2", "spaces, not tabs")
plain_case("a recipe that is no mapping", recipe("- method\n- dpo\n"), "recipe.yaml", "key: value")
plain_case("a recipe that is empty", recipe(""), "recipe.yaml", "key: value")
plain_case("a recipe that is binary", recipe(b"\xff\xfe\0"), "recipe.yaml", "UTF-8")
plain_case("a recipe with control characters", recipe("method: \x01"), "recipe.yaml", "not valid YAML")
plain_case("a recipe with a key twice", recipe("method: dpo\nmethod: ipo\n"), "recipe.yaml", "line 2", "method")
plain_case("a recipe that makes objects", recipe("method: !!python/object/apply:os.getcwd []"), "recipe.yaml, line 1")
plain_case("a recipe with numbers for keys", recipe("1: 2\nmethod: dpo\n"), "recipe.yaml", "1")
plain_case("a recipe nested without end", recipe("a: " + "[" * 20_000), "recipe.yaml", "nested too deeply")
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
plain_case("a recipe that grows without end", recipe(BOMB), "recipe.yaml, line 2", "a0", seconds=10)
plain_case(
    "a recipe with parameters that are no mapping",
    recipe("method: dpo\nmodel: m\ndata: d\nout: o\nparams: 3\n"),
    "params",
)


@case("a recipe whose value is of the wrong kind")
def _(here: Here) -> Case:
    text = f"method: dpo\nmodel: {here.model}\ndata: {here.good()}\nout: {here.folder}/run\nbatch: [1]\n"
    return Case(["train", str(here.file("recipe.yaml", text))], ("batch=[1]", "global batch"))


# Methods by dotted path


def method(code: str | None, name: str = "mymethod.loss"):
    def line(here: Here) -> list[str]:
        if code is not None:
            here.file("mymethod.py", code)
        return here.train(method=name)

    return line


plain_case(
    "a method that does not import", method(None, "no_such_module.loss"), "no_such_module", "importable from here"
)
plain_case("a method that is not there", method("x = 1\n"), "mymethod.loss", "importable from here")
plain_case(
    "a method that is not decorated", method("def loss(pairs): return 1\n"), "mymethod.loss", "@boresight.objective"
)
plain_case(
    "a method that raises at import", method("1 / 0\n"), "mymethod.loss", "ZeroDivisionError", "mymethod.py", "line 1"
)
plain_case("a method that is no Python", method("def loss(\n"), "mymethod.loss", "SyntaxError", "mymethod.py")
plain_case("a method that leaves the program", method("raise SystemExit(0)\n"), "mymethod.loss", "SystemExit")
DECORATED = """
import boresight
from boresight.objectives import PairLogProbs, objective
@objective("my-loss", needs=())
def loss(pairs: PairLogProbs, *, beta: float = 0.1):
    {body}
"""
plain_case(
    "a method that averages", method(DECORATED.format(body="return pairs.margin().mean()")), "my-loss", "shape ()"
)
plain_case(
    "a method that raises when called",
    method(DECORATED.format(body="return pairs.no_such_view()")),
    "my-loss",
    "AttributeError",
    "no_such_view",
)
plain_case("a method that returns nothing", method(DECORATED.format(body="pass")), "my-loss", "one loss per example")
plain_case(
    "a method declared wrongly",
    method(DECORATED.format(body="pass").replace("needs=()", "needs=('refrence',)")),
    "my-loss",
    "refrence",
)


# Run folders


@case("a folder of a run that is in use")
def _(here: Here) -> Case:
    here.copy("run", here.run)
    return Case(here.train(), ("out=", "/run", "--resume"))


@case("a folder that holds something else")
def _(here: Here) -> Case:
    here.file("run/thesis.txt", "three years")
    return Case(here.train(), ("out=", "/run", "give a new folder"))


plain_case("an out that is a file", lambda h: h.train(out=h.file("run", "x")), "out=", "/run", "give a new folder")
plain_case("an out below a file", lambda h: h.train(out=h.file("f", "x") / "run"), "out=", "/f/run")
plain_case("an out where nothing can be written", lambda h: h.train(out="/proc/boresight/run"), "out=/proc/boresight")
plain_case(
    "a cache that is a file",
    lambda h: h.train(data=h.good()),
    "BORESIGHT_CACHE",
    env={"BORESIGHT_CACHE": "/dev/null"},
)
plain_case("a store that is a file", lambda h: h.train(store=h.file("store", "x")), "/store")
plain_case("nothing to resume", lambda h: ["train", "--resume", "--out", str(h.folder / "no")], "/no", "--resume")


@case("a run resumed with other options")
def _(here: Here) -> Case:
    run = here.copy("run", here.run)
    return Case(["train", str(run / "recipe.yaml"), "--resume", "--out", str(run), "beta=3"], ("beta=0.1, not 3",))


@case("an evaluation of a run whose run.json is broken")
def _(here: Here) -> Case:
    run = here.copy("run", here.run)
    (run / "run.json").write_text('{"state"')
    return Case(["evaluate", str(run), "--data", str(here.good())], ("run.json", "model/ folder"))


plain_case(
    "scores under no model",
    lambda h: ["score", str(h.good()), "--model", str(h.folder / "no")],
    "/no",
    "save_pretrained",
)
plain_case("scores of nothing", lambda h: ["score", str(h.folder / "no"), "--model", str(h.model)], "/no")
plain_case(
    "scores over something else",
    lambda h: ["score", str(h.good()), "--model", str(h.model), "--out", str(h.file("thesis.jsonl", "x"))],
    "thesis.jsonl",
)


@case("a run whose run.json is broken")
def _(here: Here) -> Case:
    run = here.copy("run", here.run)
    (run / "run.json").write_text('{"state"')
    return Case(["train", "--resume", "--out", str(run)], ("run.json",))


@case("an evaluation of a run that is not finished")
def _(here: Here) -> Case:
    run = here.copy("run", here.run)
    shutil.rmtree(run / "model")
    return Case(["evaluate", str(run), "--data", str(here.good())], ("/run", "not finished", "--resume"))


plain_case("an evaluation on nothing", lambda h: ["evaluate", str(h.model)], "nothing to evaluate on", "--data")
plain_case(
    "an evaluation of nothing",
    lambda h: ["evaluate", str(h.folder / "no"), "--data", str(h.good())],
    "/no",
    "save_pretrained",
)
plain_case(
    "an evaluation with a batch of none",
    lambda h: ["evaluate", str(h.model), "--data", str(h.good()), "--batch", "0"],
    "--batch",
)
plain_case("a report of nothing", lambda h: ["report", str(h.folder)], "/here", "run.json")
plain_case(
    "a report over something else", lambda h: report(h, h.file("thesis.html", "x")), "thesis.html", "not a report"
)
plain_case("a report into a folder", lambda h: report(h, h.folder), "/here", "is a folder")
plain_case("a view of nothing", lambda h: ["view", str(h.folder / "no")], "/no")
plain_case("a port that there is not", lambda h: ["view", str(h.run), "--port", "99999"], "port", "99999")


@case("a port in use")
def _(here: Here) -> Case:
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    held.listen()
    HELD.append(held)  # until the tests end
    port = str(held.getsockname()[1])
    return Case(["view", str(here.run), "--port", port], (port, "in use", "--port"), seconds=20)


HELD: list[socket.socket] = []
plain_case("a model that exists already", lambda h: tiny(h, out=h.copy()), "/model", "exists already")
plain_case("a model of an odd width", lambda h: tiny(h, hidden=33), "hidden is 33", "even whole number")
plain_case("a model without layers", lambda h: tiny(h, layers=0), "layers")
plain_case("a vocabulary too small", lambda h: tiny(h, vocab=10), "vocab is 10", "give at least")


def report(here: Here, out: Path) -> list[str]:
    return ["report", str(here.run), "--out", str(out)]


def tiny(here: Here, **options: object) -> list[str]:
    plain = {"data": here.good(), "out": here.folder / "new", "hidden": 32, "layers": 1, "heads": 2, "vocab": 300}
    return ["tiny", *(word for k, v in (plain | options).items() for word in (f"--{k}", str(v)))]
