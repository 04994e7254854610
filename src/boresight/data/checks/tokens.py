"""What the model's tokenizer, template and length limit make of the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from boresight.data.checks._base import Check, Finding, Kind, Severity

_DROPPED: tuple[tuple[str, str, Severity, str, str, str], ...] = (
    (
        "identical",
        "identical-tokens",
        "error",
        "pairs whose two responses are the same tokens",
        "they are left out here; trained on elsewhere they give loss 0.693 and no gradient",
        "leave them out (--fix does where the texts are the same)",
    ),
    (
        "identical-after-truncation",
        "identical-after-truncation",
        "error",
        "pairs whose two responses became the same tokens when they were cut",
        "they are left out here; trained on elsewhere they give loss 0.693 and no gradient",
        "raise --max-length, or use --truncation drop",
    ),
    (
        "too-long",
        "too-long",
        "warning",
        "rows that do not fit into --max-length",
        "they are left out of training; long answers go missing, and with them what they teach",
        "raise --max-length, or use --truncation cut-prompt",
    ),
    (
        "empty-response",
        "empty-rows",
        "error",
        "rows with an empty response",
        "they are left out of training",
        "leave them out (--fix does)",
    ),
    (
        "template",
        "refused-by-template",
        "error",
        "rows that the chat template refuses",
        "they are left out of training",
        "mend the roles of the messages, or use --template plain",
    ),
    (
        "no-such-turn",
        "missing-turns",
        "error",
        "rows in which a turn to train on is missing",
        "they are left out of training",
        "use --spans last",
    ),
)
"""Reason in the rows' report, then the fields of a kind."""

_SEQUENCES: tuple[tuple[str, str, Severity, str, str, str], ...] = (
    (
        "endless",
        "no-end-of-turn",
        "error",
        "answers without an end-of-turn behind them",
        "the model does not learn to stop: after training it writes on until the limit",
        "use a template or tokenizer with an EOS; check that the data does not end inside an answer",
    ),
    (
        "cut_answers",
        "cut-answers",
        "warning",
        "answers that were cut; none of them was given an end-of-turn",
        "their end is missing: what was better about them may lie there",
        "raise --max-length, or use --truncation drop",
    ),
    (
        "cut_prompts",
        "cut-prompts",
        "note",
        "prompts cut from the left",
        "the answer is trained behind a part of its conversation",
        "raise --max-length, if the beginning matters",
    ),
    (
        "out_of_context",
        "other-context",
        "error",
        "answers trained behind another context than generation starts from",
        "what is learned behind one text is used behind another",
        "mend the chat template: its generation prompt must be a beginning of the whole conversation",
    ),
    (
        "other_start",
        "other-start",
        "warning",
        "sequences before which generation starts from other tokens of the same text",
        "the first tokens of every answer are learned in a place where generation never is",
        "let the template end its generation prompt with a special token or a line break, not a space",
    ),
    (
        "special_text",
        "special-token-injection",
        "error",
        "sequences whose data holds the text of a special token of this model, which became that token",
        "a turn ends early or a role is forged, in the middle of the data's own text",
        "take these texts out of the data",
    ),
    (
        "bos",
        "double-bos",
        "error",
        "sequences that begin with more than one BOS",
        "no model was pre-trained so, and generation will not start so",
        "take the BOS out of the template or out of the tokenizer's own additions",
    ),
    (
        "seams",
        "seam-tokens",
        "note",
        "sequences with a token across the seam of prompt and response",
        "the token is trained on as part of the response; generation starts from other tokens there",
        "nothing where they are few",
    ),
)
"""Field of the rows' report, then the fields of a kind."""


class TokenRows(Check):
    """Needs a model; the counts come from making the training rows."""

    kinds = (
        *(Kind(id, severity, title, effect, mend, "rows") for _, id, severity, title, effect, mend in _DROPPED),
        *(Kind(id, severity, title, effect, mend, "sequences") for _, id, severity, title, effect, mend in _SEQUENCES),
        Kind(
            "no-eos",
            "error",
            "the tokenizer has no EOS",
            "nothing teaches the model to stop",
            "set tokenizer.eos_token and save the tokenizer",
            "",
        ),
    )

    def findings(self) -> Iterator[Finding]:
        """Drops count rows, the rest count sequences: a pair has two."""
        report = self.setting.tokens
        if report is None:
            return
        total = report.made + sum(n for reason, n in report.dropped.items() if reason not in ("no-feedback", "tie"))
        for reason, id, *_ in _DROPPED:
            if report.dropped.get(reason):
                shown = [(s, d) for s, _, d in (line.partition(": ") for line in report.first.get(reason, []))]
                yield self.found(id, report.dropped[reason], total, examples=shown)
        sequences = sum(report.bos.values())
        counts = {"endless": report.unfinished, "other_start": report.torn}
        counts["bos"] = sum(n for k, n in report.bos.items() if int(k) > 1)
        for name, id, *_ in _SEQUENCES:
            count = counts[name] if name in counts else getattr(report, name)
            if count:
                yield self.found(id, count, sequences, examples=[(s, "") for s in report.marked.get(name, [])])
        if report.renderer.get("eos") is None:
            yield self.found("no-eos", 1, 0)

    def facts(self) -> dict[str, Any]:
        """Tokens in all, and how many BOS stand at the beginning of a sequence."""
        report = self.setting.tokens
        return {} if report is None else {"bos_at_the_beginning": dict(report.bos)}
