"""The user's text as tokens, to cut it into clauses and items without rewriting it.

sqlglot's rendering changes meaning in places (``a !~ b``, ``a ^ b``, ``date_bin``), so
expressions are handed on as they were written: a span of tokens yields the text between its
first and its last token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError, TokenError
from sqlglot.tokenizer_core import Token, TokenType

from headwater.errors import ViewDefinitionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WORD = re.compile(r"[^\W\d][\w$]*\Z")
OPENING = frozenset({TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE})
CLOSING = frozenset({TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE})


@dataclass(frozen=True, slots=True)
class Span:
    """A run of tokens of one text."""

    sql: str
    tokens: Sequence[Token]

    @property
    def text(self) -> str:
        """The text from the first token to the last, as the user wrote it."""
        if not self.tokens:
            return ""
        return self.sql[self.tokens[0].start : self.tokens[-1].end + 1]

    def __len__(self) -> int:
        return len(self.tokens)

    def cut(self, start: int, end: int | None = None) -> Span:
        """The tokens from ``start`` up to ``end``."""
        return Span(self.sql, self.tokens[start:end])

    def top_level(self) -> Iterator[tuple[int, Token]]:
        """The tokens outside every parenthesis and bracket, with their index."""
        depth = 0
        for index, token in enumerate(self.tokens):
            if token.token_type in CLOSING:
                depth -= 1
            if depth == 0:
                yield index, token
            if token.token_type in OPENING:
                depth += 1

    def find(self, *types: TokenType) -> int | None:
        """The index of the first top-level token of one of the types."""
        return next((i for i, token in self.top_level() if token.token_type in types), None)

    def find_clause(self, kind: TokenType) -> int | None:
        """The index of a clause's keyword; the FROM of ``IS DISTINCT FROM`` is none."""
        for index, token in self.top_level():
            follows_is = (
                index > 1
                and self.tokens[index - 1].token_type == TokenType.DISTINCT
                and self.tokens[index - 2].token_type in {TokenType.IS, TokenType.NOT}
            )
            if token.token_type == kind and not follows_is:
                return index
        return None

    def split(self, separator: TokenType) -> list[Span]:
        """The parts between top-level separators."""
        cuts = [i for i, token in self.top_level() if token.token_type == separator]
        starts = [0, *(cut + 1 for cut in cuts)]
        ends = [*cuts, len(self.tokens)]
        return [self.cut(start, end) for start, end in zip(starts, ends, strict=True)]

    def is_wrapped(self) -> bool:
        """Whether one pair of parentheses holds everything."""
        if len(self) < 2 or self.tokens[0].token_type != TokenType.L_PAREN:
            return False
        return [index for index, _ in self.top_level()] == [0, len(self) - 1]


def is_word(token: Token) -> bool:
    """Whether the token is a name or a keyword, quoted names included."""
    return token.token_type == TokenType.IDENTIFIER or (
        token.token_type not in {TokenType.STRING, TokenType.NUMBER}
        and WORD.match(token.text) is not None
    )


def name_of(token: Token) -> str:
    """The name as Postgres reads it: folded to lower case unless quoted."""
    return token.text if token.token_type == TokenType.IDENTIFIER else token.text.lower()


def tokenize(sql: str) -> Span:
    """The whole text as tokens, without closing semicolons."""
    try:
        tokens = sqlglot.tokenize(sql, read="postgres")
    except TokenError as error:
        raise ViewDefinitionError(
            f"The SQL has a syntax error: {error}.", hint="Check quotes and comments."
        ) from error
    while tokens and tokens[-1].token_type == TokenType.SEMICOLON:
        tokens = tokens[:-1]
    return Span(sql, tokens)


def parse_statement(sql: str) -> exp.Expr:
    """The one statement's tree."""
    try:
        statements = [tree for tree in sqlglot.parse(sql, read="postgres") if tree is not None]
    except ParseError as error:
        raise _syntax_error(error) from error
    except SqlglotError as error:
        raise ViewDefinitionError(f"The SQL could not be read: {error}.") from error
    if not statements:
        raise ViewDefinitionError("The SQL is empty.", hint="Write one SELECT.")
    if len(statements) > 1:
        raise ViewDefinitionError(
            "A view is one SELECT, and the SQL holds more than one statement.",
            hint="Declare one view for each.",
        )
    return statements[0]


def parse_expression(span: Span) -> exp.Expr:
    """The tree of one expression, cut out of the statement."""
    refusal = ViewDefinitionError(
        f"The expression '{span.text}' could not be understood.",
        hint="Write it more simply, with parentheses.",
    )
    try:
        tree = sqlglot.parse_one(f"SELECT {span.text}", read="postgres")
    except SqlglotError as error:
        raise refusal from error
    if not isinstance(tree, exp.Select) or len(tree.expressions) != 1:
        raise refusal
    expression: exp.Expr = tree.expressions[0]
    if any(value for name, value in tree.args.items() if name != "expressions"):
        raise refusal
    return expression


def _syntax_error(error: ParseError) -> ViewDefinitionError:
    details = error.errors[0] if error.errors else {}
    reason = str(details.get("description", error)).split("<Token")[0].strip().rstrip(".")
    near = details.get("highlight")
    where = f" at line {details['line']}, column {details['col']}" if "line" in details else ""
    return ViewDefinitionError(
        f"The SQL has a syntax error{where}: {reason}{f', near {near!r}' if near else ''}.",
        hint="Only Postgres's SELECT is understood; quote names that are keywords.",
    )
