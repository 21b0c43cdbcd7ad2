"""Event types in a user's query, as names that one engine's parser takes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlglot import Tokenizer
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

from headwater.errors import QueryRefused

_BEFORE = frozenset({"from", "join"})
_ALIAS = frozenset({TokenType.ALIAS, TokenType.VAR, TokenType.IDENTIFIER})


def quote_relations(sql: str, types: Collection[str]) -> str:
    """The query with event types after FROM and JOIN quoted whole: ``order.placed`` is ``"order.placed" AS "placed"``.

    Everything else stays as it was written. Raises QueryRefused for text that is no SQL.
    """
    try:
        tokens = Tokenizer(dialect="duckdb").tokenize(sql)
    except SqlglotError as error:
        raise QueryRefused(f"The query cannot be read: {error}.") from error
    written, at = "", 0
    for index, token in enumerate(tokens):
        if token.text.lower() not in _BEFORE or token.token_type == TokenType.IDENTIFIER:
            continue
        parts = _name(tokens[index + 1 :])
        name = ".".join(part.text for part in parts)
        if name.lower() not in types:
            continue
        after = index + 2 * len(parts)
        is_named = after < len(tokens) and tokens[after].token_type in _ALIAS
        alias = "" if is_named else f' AS "{parts[-1].text}"'
        written += f'{sql[at : parts[0].start]}"{name.lower()}"{alias}'
        at = parts[-1].end + 1
    return written + sql[at:]


def words(sql: str) -> set[str]:
    """The words of a query, texts and comments aside, in lower case."""
    tokens = Tokenizer(dialect="duckdb").tokenize(sql)
    return {token.text.lower() for token in tokens if token.token_type != TokenType.STRING}


def _name(tokens: Sequence[Token]) -> list[Token]:
    """The parts of a dotted name at the beginning."""
    parts = list(tokens[:1])
    for dot, part in zip(tokens[1::2], tokens[2::2], strict=False):
        if dot.token_type != TokenType.DOT:
            break
        parts.append(part)
    return parts
