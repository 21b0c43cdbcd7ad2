"""The functions that an expression calls, read off its tokens, and those refused by name.

A name that passes here is still only a name: the database says later whether it is immutable.
"""

from __future__ import annotations

from sqlglot.tokenizer_core import Token, TokenType

from headwater.errors import ViewDefinitionError
from headwater.views.sql.tokens import WORD, Span, is_word, name_of


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OF_SEVERAL = frozenset({"first", "last", "approx_quantile", "approx_count_distinct", "merged"})
"""Aggregates of Headwater's own; Postgres has none of these names."""

KEPT_AGGREGATES = frozenset({"count", "sum", "min", "max", "avg"}) | OF_SEVERAL

OTHER_AGGREGATES = _words(
    """
    any_value array_agg bit_and bit_or bit_xor bool_and bool_or corr covar_pop covar_samp
    cume_dist dense_rank every grouping json_agg json_agg_strict json_arrayagg json_object_agg
    json_objectagg jsonb_agg jsonb_object_agg mode percent_rank percentile_cont percentile_disc
    range_agg range_intersect_agg rank regr_avgx regr_avgy regr_count regr_intercept regr_r2
    regr_slope regr_sxx regr_sxy regr_syy stddev stddev_pop stddev_samp string_agg var_pop
    var_samp variance xmlagg median approx_distinct group_concat
    listagg
    """
)

SET_RETURNING = _words(
    """
    unnest generate_series generate_subscripts json_array_elements json_array_elements_text
    json_each json_each_text json_object_keys json_populate_recordset json_to_recordset
    jsonb_array_elements jsonb_array_elements_text jsonb_each jsonb_each_text jsonb_object_keys
    jsonb_path_query jsonb_path_query_tz jsonb_populate_recordset jsonb_to_recordset json_table
    regexp_matches regexp_split_to_table string_to_table aclexplode
    """
)

VOLATILE = _words(
    """
    clock_timestamp currval dblink gen_random_uuid inet_client_addr inet_client_port
    inet_server_addr inet_server_port lastval nextval now random random_normal set_config setseed
    setval statement_timestamp timeofday transaction_timestamp uuidv4 uuidv7 version
    """
)
VOLATILE_PREFIXES = ("current_", "has_", "lo_", "pg_", "row_security_", "txid_", "uuid_generate_")

SESSION_WORDS = _words(
    """
    current_catalog current_date current_role current_schema current_time current_timestamp
    current_user localtime localtimestamp session_user system_user user
    """
)
"""Keywords that Postgres evaluates without parentheses, where sqlglot may see a column."""

MOVING_LITERALS = frozenset({"now", "today", "tomorrow", "yesterday"})

_GRAMMAR = _words(
    """
    all and any array as asymmetric between both by case cast coalesce collate distinct else end
    escape except exists filter for from greatest group having ilike in intersect interval is
    isnull join leading least like limit not notnull null nullif offset on or order over partition
    placing row select similar some symmetric then to trailing trim union using values varying when
    where window with within zone
    """
)
"""Words that may stand before a parenthesis without being a function of pg_proc."""


def functions_called(span: Span) -> tuple[str, ...]:
    """The names called, in lower case unless quoted, with their schema where one is written."""
    names: dict[str, None] = {}
    for index, token in enumerate(span.tokens[:-1]):
        if span.tokens[index + 1].token_type != TokenType.L_PAREN or not is_word(token):
            continue
        start = _chain_start(span, index)
        if _is_type(span, start):
            continue
        parts = [name_of(part) for part in span.tokens[start : index + 1 : 2]]
        quoted = token.token_type == TokenType.IDENTIFIER
        if len(parts) > 1 or quoted or parts[0] not in _GRAMMAR:
            names[".".join(parts)] = None
    return tuple(names)


def refuse_unrepeatable(span: Span) -> None:
    """Refuse what answers differently another day: a view must come out of the log alone."""
    for name in functions_called(span):
        base = name.removeprefix("pg_catalog.")
        if base in VOLATILE or base.startswith(VOLATILE_PREFIXES):
            raise _unrepeatable(f"{name}()")
        if base in SET_RETURNING:
            raise ViewDefinitionError(
                f"{name}() returns a set of rows, and a view keeps one row per group.",
                hint="Write one event for each element, or keep a fold.",
            )
        if base == "age" and _has_one_argument(span, "age"):
            raise _unrepeatable("age() with one argument")
    for index, token in enumerate(span.tokens):
        if _is_session_word(span, index, token):
            raise _unrepeatable(token.text)
        if _is_moving_literal(span, index, token):
            raise _unrepeatable(f"The literal '{token.text}'")


def _unrepeatable(what: str) -> ViewDefinitionError:
    return ViewDefinitionError(
        f"{what} depends on the moment or the session, so a rebuild would give another answer.",
        hint="Use a column of the event, such as occurred_at or recorded_at, write the value "
        "into the event, or apply it when reading. A column or text of that name needs quotes "
        "or a cast: \"user\", 'today'::text.",
    )


def _chain_start(span: Span, index: int) -> int:
    """Where the dotted name that ends at ``index`` starts."""
    while (
        index >= 2
        and span.tokens[index - 1].token_type == TokenType.DOT
        and is_word(span.tokens[index - 2])
    ):
        index -= 2
    return index


def _is_type(span: Span, start: int) -> bool:
    """Whether the name is a type with modifiers, as in ``x::numeric(10, 2)``."""
    if start == 0:
        return False
    before = span.tokens[start - 1]
    return before.token_type in {TokenType.DCOLON, TokenType.ALIAS}


def _has_one_argument(span: Span, function: str) -> bool:
    for index, token in enumerate(span.tokens[:-1]):
        opens = span.tokens[index + 1].token_type == TokenType.L_PAREN
        if opens and name_of(token) == function:
            inner = inside(span.cut(index + 1))
            if len(inner.split(TokenType.COMMA)) == 1:
                return True
    return False


def inside(span: Span) -> Span:
    """What stands between the parenthesis that opens the span and its counterpart."""
    closing = next(i for i, token in span.top_level() if token.token_type == TokenType.R_PAREN)
    return span.cut(1, closing)


def _is_session_word(span: Span, index: int, token: Token) -> bool:
    if token.token_type == TokenType.IDENTIFIER or not WORD.match(token.text):
        return False
    before = span.tokens[index - 1].token_type if index else None
    is_part = before in {TokenType.DOT, TokenType.ALIAS}
    return token.text.lower() in SESSION_WORDS and not is_part


def _is_moving_literal(span: Span, index: int, token: Token) -> bool:
    is_string = token.token_type.name.endswith("STRING")
    if not is_string or token.text.strip().lower() not in MOVING_LITERALS:
        return False
    following = span.tokens[index + 1 : index + 3]
    as_text = (
        len(following) == 2
        and following[0].token_type == TokenType.DCOLON
        and following[1].text.lower() in {"text", "varchar"}
    )
    return not as_text
