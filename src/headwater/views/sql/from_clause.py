"""The FROM clause: one event type, one fold's documents, or a UNION ALL of projections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlglot import exp
from sqlglot.tokenizer_core import TokenType

from headwater.errors import ViewDefinitionError
from headwater.views.sql.query import Projection, Reading
from headwater.views.sql.scalars import Scope, did_you_mean, folded, reads_tenant
from headwater.views.sql.sources import DocumentSource, EventSource, Source, ViewSource, find_column
from headwater.views.sql.statement import Clauses, refuse_clauses, split_clauses, split_items
from headwater.views.sql.tokens import Span, is_word, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(slots=True)
class Origin:
    """What a SELECT reads from: its scope, and the readings once the scope has been used."""

    scope: Scope
    source: EventSource | DocumentSource | None
    branches: tuple[Reading, ...]

    def readings(self) -> tuple[Reading, ...]:
        """The sources with only the columns used by now."""
        if self.source is None:
            return self.branches
        used = tuple(column for column in self.source.columns if column.name in self.scope.used)
        return (Reading(source=self.source, alias=self.scope.alias, columns=used),)


def read_origin(tree: exp.Select, clause: Span, sources: Mapping[str, Source]) -> Origin:
    """The FROM clause's meaning."""
    origin = tree.args["from_"].this
    if isinstance(origin, exp.Table) and isinstance(origin.this, exp.Identifier | exp.Dot):
        return _plain(clause, sources)
    if isinstance(origin, exp.Subquery):
        return _derived(origin, clause, sources)
    raise ViewDefinitionError(
        f"The FROM clause '{clause.text}' is neither an event type nor a UNION ALL of them.",
        hint="Read one event type, as in FROM order.placed; functions, VALUES and LATERAL can't "
        "be followed batch by batch.",
    )


def _plain(clause: Span, sources: Mapping[str, Source]) -> Origin:
    if len(clause) > 1 and clause.tokens[0].text.lower() == "only" and is_word(clause.tokens[1]):
        raise ViewDefinitionError(
            "ONLY has no meaning for an event type.", hint="Write FROM and the event type."
        )
    end = 1
    while end + 1 < len(clause) and clause.tokens[end].token_type == TokenType.DOT:
        end += 2
    parts = [name_of(token) for token in clause.tokens[:end:2]]
    name = ".".join(parts)
    if name not in sources or isinstance(sources[name], ViewSource):
        raise ViewDefinitionError(
            f"There is no event type or fold named '{name}' to read here.",
            hint=did_you_mean(name, sources),
        )
    source = sources[name]
    assert not isinstance(source, ViewSource)
    if isinstance(source, EventSource) and source.relation.confined:
        raise ViewDefinitionError(
            f"Earlier versions of '{name}' are upcast by a Python function, which SQL cannot call.",
            hint="Read the type in a fold, and the fold's documents here; or write the steps as Rename, Cast, "
            "Default, Remove or Computed.",
        )
    alias = _alias(clause.cut(end)) or parts[-1]
    tenant, place = find_column(source, "tenant"), find_column(source, "position")
    scope = Scope(
        alias=alias,
        columns=tuple(column.name for column in source.columns),
        tenant="tenant" if tenant is not None and tenant.expression == "e.tenant" else None,
        position="position" if place is not None and place.expression == "e.position" else None,
        sealed=frozenset(column.name for column in source.columns if column.sealed),
    )
    return Origin(scope=scope, source=source, branches=())


def _alias(rest: Span) -> str | None:
    """The relation's alias, when nothing but an alias is left."""
    if not len(rest):
        return None
    if rest.tokens[0].token_type == TokenType.ALIAS:
        rest = rest.cut(1)
    if len(rest) != 1 or not is_word(rest.tokens[0]):
        raise ViewDefinitionError(
            f"'{rest.text}' after the relation isn't understood.",
            hint="A relation may only have an alias; ONLY, TABLESAMPLE and column lists can't "
            "be kept.",
        )
    return name_of(rest.tokens[0])


def _derived(origin: exp.Subquery, clause: Span, sources: Mapping[str, Source]) -> Origin:
    closing = clause.find(TokenType.R_PAREN)
    if closing is None or clause.tokens[0].token_type != TokenType.L_PAREN:
        raise ViewDefinitionError(
            f"The FROM clause '{clause.text}' isn't understood.",
            hint="Write FROM (SELECT ... UNION ALL SELECT ...) AS name.",
        )
    alias = _alias(clause.cut(closing + 1))
    if alias is None:
        raise ViewDefinitionError(
            "The derived table has no name.", hint="Write FROM (SELECT ...) AS name."
        )
    trees = _branch_trees(origin.this)
    spans = _branch_spans(clause.cut(1, closing))
    if len(trees) != len(spans):
        raise ViewDefinitionError(
            "The branches of the UNION ALL could not be told apart.",
            hint="Write the branches without parentheses around them.",
        )
    names: tuple[str, ...] = ()
    readings: list[Reading] = []
    functions: dict[str, None] = {}
    sealed: set[str] = set()
    for tree, span in zip(trees, spans, strict=True):
        reading, inner = _branch(tree, span, sources, names)
        functions.update(inner.functions)
        # What is projected of a sealed column is the column itself, or whether it is NULL.
        sealed |= {p.name for p in reading.projections if p.text.split(".")[-1] in inner.sealed}
        names = names or tuple(projection.name for projection in reading.projections)
        readings.append(reading)
    _refuse_mixture(readings)
    position = "position" if "position" in names else None
    scope = Scope(
        alias=alias, columns=names, tenant=None, functions=functions, position=position, sealed=frozenset(sealed),
    )  # fmt: skip
    return Origin(scope=scope, source=None, branches=tuple(readings))


def _refuse_mixture(readings: list[Reading]) -> None:
    documents = {r.source.name for r in readings if isinstance(r.source, DocumentSource)}
    if documents and len({reading.source.name for reading in readings}) > 1:
        raise ViewDefinitionError(
            f"The view reads the documents of {', '.join(sorted(documents))} together with "
            "something else, and a view follows either events or one fold.",
            hint="Declare two views and combine them when reading.",
        )


def _branch_trees(tree: exp.Expr) -> list[exp.Select]:
    if isinstance(tree, exp.SetOperation):
        refuse_set_operation(tree)
        return [*_branch_trees(tree.left), *_branch_trees(tree.right)]
    if isinstance(tree, exp.Select):
        return [tree]
    raise ViewDefinitionError(
        "A derived table may only hold SELECTs joined by UNION ALL.",
        hint="Write FROM (SELECT ... FROM a.b UNION ALL SELECT ... FROM a.c) AS name.",
    )


def refuse_set_operation(tree: exp.SetOperation) -> None:
    """Refuse the set operations that compare rows, and clauses on the whole set."""
    if not isinstance(tree, exp.Union) or tree.args.get("distinct"):
        raise ViewDefinitionError(
            "UNION without ALL, INTERSECT and EXCEPT compare rows across batches.",
            hint="Use UNION ALL, and count(DISTINCT x) where duplicates matter.",
        )
    extra = [
        name
        for name, value in tree.args.items()
        if value and name not in {"this", "expression", "distinct"}
    ]
    if extra:
        raise ViewDefinitionError(
            f"{extra[0].strip('_').upper()} on a UNION ALL can't be kept batch by batch.",
            hint="Keep to SELECT ... FROM ... WHERE ... in each branch.",
        )


def _branch_spans(inner: Span) -> list[Span]:
    spans: list[Span] = []
    for part in inner.split(TokenType.UNION):
        is_all = bool(spans) and part.tokens[0].token_type == TokenType.ALL
        spans.append(part.cut(1) if is_all else part)
    return spans


def _branch(
    tree: exp.Select, span: Span, sources: Mapping[str, Source], names: tuple[str, ...]
) -> tuple[Reading, Scope]:
    refuse_clauses(tree)
    if tree.args.get("group") is not None:
        raise ViewDefinitionError(
            "A derived table with GROUP BY would have to be kept as a view of its own.",
            hint="Group once, in the outer SELECT.",
        )
    clauses = split_clauses(tree, span)
    origin = tree.args["from_"].this
    if not isinstance(origin, exp.Table) or not isinstance(origin.this, exp.Identifier | exp.Dot):
        raise ViewDefinitionError(
            "A branch of a derived table reads something else than one relation.",
            hint="Let each branch read one event type, without nesting.",
        )
    inner = _plain(clauses.origin, sources)
    projections = _projections(tree, clauses, inner.scope, names)
    condition = None
    if clauses.condition is not None:
        inner.scope.check(clauses.condition)
        condition = clauses.condition.text
    (plain,) = inner.readings()
    reading = Reading(plain.source, plain.alias, plain.columns, projections, condition)
    return reading, inner.scope


def _projections(
    tree: exp.Select, clauses: Clauses, scope: Scope, names: tuple[str, ...]
) -> tuple[Projection, ...]:
    items = split_items(tree, clauses)
    if names and len(items) != len(names):
        raise ViewDefinitionError(
            f"The branches of the UNION ALL have {len(names)} and {len(items)} columns.",
            hint="Give every branch the same columns in the same order.",
        )
    projections: list[Projection] = []
    for index, item in enumerate(items):
        expression = scope.check(item.span)
        if reads_tenant(expression, scope):
            raise ViewDefinitionError(
                "The tenant is every view's first key already.", hint="Leave the tenant out."
            )
        name = item.name or (folded(expression.this) if isinstance(expression, exp.Column) else "")
        name = names[index] if names else name
        if not name or name in {projection.name for projection in projections}:
            raise ViewDefinitionError(
                f"Column {index + 1} of the derived table needs a name of its own.",
                hint="Write AS and a name.",
            )
        projections.append(Projection(name=name, text=item.span.text))
    return tuple(projections)
