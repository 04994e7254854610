"""Ranked full-text search over the catalogue's rows: SQLite's FTS5 in memory, word stems, BM25.

Three things are added to plain FTS5: British and American spellings meet, common wordings of one idea meet
(`noisy labels`, `flipped labels`), and a word that no row contains is replaced by the nearest ones that some do.
"""

from __future__ import annotations

import re
import sqlite3
from difflib import get_close_matches
from functools import cache

from boresight.catalogue.rows import names, rows

# Column and its weight in BM25: a word in a name tells more than the same word in a description.
COLUMNS = {
    "id": 10.0,
    "aka": 10.0,
    "title": 8.0,
    "family": 3.0,
    "what": 3.0,
    "claim": 2.0,
    "algorithm": 1.0,
    "authors": 1.0,
    "target": 0.5,
    "modality": 0.5,
    "kind": 0.5,
    "headline": 0.5,
    "peer": 0.5,
}

# A word, and others that rows may use for the same thing and that share no stem with it.
ALSO = {
    "noisy": "noise flipped mislabelled corrupted",
    "noise": "noisy flipped mislabelled corrupted",
    "flipped": "noisy noise",
    "thumbs": "unpaired",
    "unpaired": "thumbs",
    "hacking": "overoptimisation",
    "length": "verbosity verbose",
    "verbosity": "length",
    "verbose": "length",
    "multi": "multiple",
    "translate": "translation",
    "summarise": "summary",
    "rm": "reward",
}

_TELLS_NOTHING = """
a an and are as at be by can do does for from how i in into is it its me my of on or our over than that the their this
to use using via we what when where which with without work works method methods paper papers
"""
STOP = frozenset(_TELLS_NOTHING.split())


def fold(text: str) -> str:
    """`text` in lower case with -ise and -our spelled -ize and -or, the same for rows and for what is searched.

    It also changes words that have no second spelling (`noise`); as both sides change alike, that does no harm.
    """
    text = re.sub(r"(?<=\w{3})is(?=(e|ed|es|er|ers|ing|ation|ations)\b)", "iz", text.lower())
    text = re.sub(r"(?<=\w{3})yse(?=(d|s|r)?\b)", "yze", text)
    return re.sub(r"(?<=\w{3})our(?=(s|al|ed|ite)?\b)", "or", text)


def split(text: str) -> list[str]:
    """The folded words of `text`, without those that tell nothing unless nothing else is left."""
    words = re.findall(r"[^\W_]+", fold(text))
    return [w for w in words if w not in STOP] or words


_ALSO = {fold(word): split(others) for word, others in ALSO.items()}


@cache
def _index() -> tuple[sqlite3.Connection, tuple[str, ...]]:
    """The index, and every word in it, sorted."""
    # Built once and only read afterwards, so that threads may share it.
    database = sqlite3.connect(":memory:", check_same_thread=False)
    database.execute(
        f"CREATE VIRTUAL TABLE t USING fts5({', '.join(COLUMNS)}, tokenize='porter unicode61 remove_diacritics 2')"
    )
    vocabulary: set[str] = set()
    for row in rows().values():
        cells = [row.get(c, "") for c in COLUMNS]
        # The mark `uncertain:` says something of our notes, nothing of the paper.
        text = [fold(" ".join(c) if isinstance(c, list) else str(c)).replace("uncertain:", "") for c in cells]
        database.execute(f"INSERT INTO t VALUES ({', '.join('?' * len(text))})", text)
        vocabulary.update(w for t in text for w in re.findall(r"[^\W_]+", t))
    return database, tuple(sorted(vocabulary))


def _matches(query: str) -> list[str]:
    """Ids of the rows that match an FTS5 query, the best first."""
    weights = ", ".join(map(str, COLUMNS.values()))
    order = tuple(rows())
    found = _index()[0].execute(f"SELECT rowid FROM t WHERE t MATCH ? ORDER BY bm25(t, {weights}), rowid", (query,))
    return [order[rowid - 1] for (rowid,) in found]


@cache
def _term(word: str) -> str:
    """The FTS5 expression for one word: the word, what means the same, or where no row has it, what is near it."""
    alternatives = [f'"{w}"' for w in (word, *_ALSO.get(word, ()))]
    if not any(_matches(a) for a in alternatives):
        vocabulary = _index()[1]
        begun = [f'"{word}" *'] if len(word) > 2 and any(v.startswith(word) for v in vocabulary) else []
        near = get_close_matches(word, [v for v in vocabulary if len(v) > 2], n=3, cutoff=0.75)
        alternatives = begun or [f'"{w}"' for w in near]
    return f"({' OR '.join(alternatives)})" if alternatives else ""


def search(words: str) -> list[str]:
    """Ids of the rows that have to do with `words`, the best first; all rows in their own order for no words.

    A row that goes by exactly this name comes first, then rows that hold every word, then rows that hold some.
    Words that neither occur nor are near one that does are left out; where that leaves none, nothing is found.
    """
    wanted = list(dict.fromkeys(split(words)))
    if not wanted:
        return [] if words.strip() else list(rows())
    terms = [t for t in map(_term, wanted) if t]
    if not terms:
        return []
    exact = names().get(words.strip().lower())
    found = [exact] if exact else []
    return list(dict.fromkeys([*found, *_matches(" AND ".join(terms)), *_matches(" OR ".join(terms))]))
