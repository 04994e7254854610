"""Templates of judges: what is asked, in which words, and how the answer is to be read.

A template is a text file: front matter in YAML between two lines of `---`, then sections that begin with a line
`=== system` or `=== user`, each in jinja2. Keys of the front matter: `kind` (one of KINDS), `parser` (one of PARSERS);
optional: `about`, `scale` (two numbers, for scores), `max_tokens`, `temperature`. Which names a kind's text may use is
said by KINDS. Judged texts come fenced: between two lines with a marker that their writers cannot know.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from boresight.data.cells import said
from boresight.data.example import Message
from boresight.errors import InputError, nearest

KINDS = {
    "pairwise": ("prompt", "first", "second", "rubric"),
    "pointwise": ("prompt", "response", "rubric", "low", "high"),
    "criteria": ("prompt", "first", "second", "criteria"),
    "concept": ("prompt", "first", "second", "question"),
}
"""Kinds of judgements, and the names that their templates may use beside `marker`."""
FENCED = {"prompt": "question", "first": "answer A", "second": "answer B", "response": "answer"}
"""Names that stand for judged texts, and what their fences are called."""
PARSERS = ("verdict", "score", "label", "criteria")
ROLES = ("system", "user", "assistant")
KEYS = ("kind", "parser", "about", "scale", "max_tokens", "temperature")
LARGEST = 1 << 20
"""Bytes of a template, and of what one piece of a prompt may grow to be."""


@dataclass(frozen=True)
class Template:
    """A template that has been read. scale: lowest and highest score. digest: of the whole file, for provenance."""

    name: str
    kind: str
    parser: str
    sections: tuple[tuple[str, str], ...]
    digest: str
    about: str = ""
    scale: tuple[int, int] = (1, 10)
    max_tokens: int = 512
    temperature: float = 0.0

    @property
    def labels(self) -> dict[str, float]:
        """What the answer of a `label` parser may be, and its worth: 1 for A in a pair, a score as it is."""
        if self.kind == "pointwise":
            return {str(k): float(k) for k in range(self.scale[0], self.scale[1] + 1)}
        return {"A": 1.0, "B": 0.0, "C": 0.5}


def templates() -> dict[str, str]:
    """The names of the templates that come with the package, and what they are for."""
    names = sorted(p.name.removesuffix(".txt") for p in _folder().iterdir() if p.name.endswith(".txt"))
    return {name: template(name).about for name in names}


@cache
def _folder() -> Any:
    return files("boresight.judging") / "templates"


def template(name: str | Path) -> Template:
    """The template of that name, or in that file. Raises InputError with the file and what is wrong in it."""
    known = [p.name.removesuffix(".txt") for p in _folder().iterdir() if p.name.endswith(".txt")]
    if str(name) in known:
        return read_template(_folder().joinpath(f"{name}.txt").read_text("utf-8"), str(name))
    path = Path(name).expanduser()
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        text = content.decode("utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        mend = f"give a file, or one of these: {nearest(str(name), known)}"
        raise InputError(f"there is no template {str(name)!r}, and no such file", mend=mend) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {said(error)}", mend="give a text file in UTF-8") from None
    if len(content) > LARGEST:
        raise InputError(f"{path}: more than {LARGEST >> 20} MiB for a template", mend="give a shorter one")
    return read_template(text, path.name)


def read_template(text: str, name: str) -> Template:
    """The template in a text. Raises InputError that names `name` and what is wrong."""
    import yaml

    def wrong(what: str, mend: str) -> InputError:
        return InputError(f"template {name}: {what}", mend=mend)

    lines = text.removeprefix("\ufeff").splitlines()
    ends = [k for k, line in enumerate(lines) if line.strip() == "---"][:2]
    if len(ends) < 2 or ends[0] != 0:
        raise wrong("no front matter", "begin it with a line ---, keys such as `kind: pairwise`, and a line ---")
    try:
        front = yaml.safe_load("\n".join(lines[1 : ends[1]]))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise wrong(f"its front matter is no YAML: {said(error)}", "write `key: value` lines") from None
    if not isinstance(front, dict):
        raise wrong("its front matter has no keys", "write `key: value` lines")
    for key in front:
        if key not in KEYS:
            raise wrong(f"unknown key {key!r}", nearest(str(key), KEYS))
    for key, values in (("kind", tuple(KINDS)), ("parser", PARSERS)):
        if front.get(key) not in values:
            raise wrong(f"{key} is {front.get(key)!r}", f"write one of {', '.join(values)}")
    scale, most, heat = front.get("scale", [1, 10]), front.get("max_tokens", 512), front.get("temperature", 0.0)
    if not (isinstance(scale, list) and len(scale) == 2 and all(type(s) is int for s in scale) and scale[0] < scale[1]):
        raise wrong(f"scale is {scale!r}", "write two whole numbers, the lower first: [1, 10]")
    if type(most) is not int or most < 1 or type(heat) not in (int, float) or not 0 <= heat < 100:
        raise wrong(f"max_tokens is {most!r} and temperature {heat!r}", "write a whole number from 1, a number from 0")
    made = Template(
        name, front["kind"], front["parser"], _sections(lines[ends[1] + 1 :], wrong),
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest(),
        str(front.get("about") or ""), (scale[0], scale[1]), most, float(heat),
    )  # fmt: skip
    _fits(made, wrong)
    return made


def _sections(lines: Sequence[str], wrong: Any) -> tuple[tuple[str, str], ...]:
    """(role, source) of each section. They are parted before anything is filled in, so that no text can add one."""
    found: list[tuple[str, list[str]]] = []
    for line in lines:
        if line.startswith("==="):
            role = line.removeprefix("===").strip()
            if role not in ROLES:
                raise wrong(f"a section for {role!r}", f"write === and one of {', '.join(ROLES)}")
            found.append((role, []))
        elif found:
            found[-1][1].append(line)
        elif line.strip():
            raise wrong("text before the first section", "write a line === user above it")
    if not any(role == "user" for role, _ in found):
        raise wrong("no section for the user", "write a line === user")
    return tuple((role, "\n".join(body).strip()) for role, body in found)


def _fits(made: Template, wrong: Any) -> None:
    """Parser and kind go together, the texts are valid jinja and use the texts that are to be judged."""
    import jinja2
    from jinja2 import meta

    fitting = {
        "pairwise": ("verdict", "label"), "pointwise": ("score", "label"), "criteria": ("criteria",),
        "concept": ("verdict",),
    }[made.kind]  # fmt: skip
    if made.parser not in fitting:
        raise wrong(f"the parser {made.parser} is not for {made.kind}", f"write parser: {' or '.join(fitting)}")
    if made.parser == "label":
        clash = [(a, b) for a in made.labels for b in made.labels if a != b and b.startswith(a)]
        if clash:
            a, b = clash[0]
            raise wrong(
                f"the label {a} is the beginning of {b}, so that their tokens cannot be told apart",
                "end the scale at 9",
            )
    used: set[str] = set()
    for _, source in made.sections:
        try:
            used |= meta.find_undeclared_variables(_environment().parse(source))
        except jinja2.TemplateSyntaxError as error:
            raise wrong(f"no valid jinja: {said(error)}", "see the templates that come with the package") from None
    names = KINDS[made.kind]
    for name in sorted(used - {*names, "marker", "range"}):
        raise wrong(f"it uses {name!r}, which there is not", nearest(name, (*names, "marker")))
    missing = [name for name in names if name in FENCED and name != "prompt" and name not in used]
    if missing and made.kind != "criteria":  # pictures are put behind the text
        raise wrong(f"it does not use {missing[0]!r}", f"write {{{{ {missing[0]} }}}} where that text is to stand")


@cache
def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

    class Sandbox(ImmutableSandboxedEnvironment):
        """Without multiplication, by which a short template would fill the memory."""

        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            raise SecurityError(f"{operator} is not for templates")

    return Sandbox(undefined=StrictUndefined, autoescape=False)


def render(made: Template, values: Mapping[str, Any], secret: bytes) -> list[dict[str, str]]:
    """The messages of one question. Judged texts in `values` are fenced, whatever the template does with them.

    secret: what the marker is made from, with the judged texts: the same question has the same marker. Raises
    InputError if the template fails on these values or its text grows too long.
    """
    import jinja2

    texts = {name: str(values[name]) for name in FENCED if values.get(name) is not None}
    marker = marker_for(secret, list(texts.values()))
    filled = {name: values.get(name, "") for name in KINDS[made.kind]}
    filled |= {name: fenced(text, FENCED[name], marker) for name, text in texts.items()} | {"marker": marker}
    messages = []
    for role, source in made.sections:
        try:
            pieces, size = [], 0
            for piece in _environment().from_string(source).generate(filled):
                pieces.append(piece)
                size += len(piece)
                if size > LARGEST + sum(map(len, texts.values())) * 8:
                    raise InputError(f"template {made.name}: its text grows without end", mend="look at its loops")
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise InputError(f"template {made.name}: {said(error)}", mend="mend the template") from None
        messages.append({"role": role, "content": "".join(pieces)})
    return messages


def fenced(text: str, name: str, marker: str) -> str:
    """The text between two lines that name it and have the marker."""
    return f"<<{marker} {name} begins>>\n{text}\n<<{marker} {name} ends>>"


def marker_for(secret: bytes, texts: Sequence[str]) -> str:
    """12 hexadecimal digits that stand in none of the texts and cannot be told without the secret."""
    content = "\x1f".join(texts).encode("utf-8", "surrogatepass")
    for k in range(1 << 16):
        marker = hmac.new(secret, b"%d:" % k + content, hashlib.sha256).hexdigest()[:12]
        if not any(marker in text for text in texts):
            return marker
    raise AssertionError("65,536 markers of 48 bits cannot all stand in one text")


def text_of(content: str | tuple[Message, ...]) -> str:
    """A prompt or response as one text: messages each under the name of their role."""
    if isinstance(content, str):
        return content
    return content[0].content if len(content) == 1 else "\n\n".join(f"[{m.role}]\n{m.content}" for m in content)
