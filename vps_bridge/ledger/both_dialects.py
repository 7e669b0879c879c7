"""SQL that SQLite and PostgreSQL spell differently: a statement is built once, and compiled for whichever runs it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, Integer
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.dialects.sqlite.dml import OnConflictDoNothing, OnConflictDoUpdate
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

# SQLite has taken `ON CONFLICT` over from PostgreSQL, and SQLAlchemy makes it of the same parts; see the end.
SERVER_DIALECT = "postgresql"
__all__ = ["SERVER_DIALECT", "holds", "insert", "larger", "smaller"]


class _Larger(FunctionElement[int]):
    type = Integer()
    inherit_cache = True
    name = "larger"


class _Smaller(FunctionElement[int]):
    type = Integer()
    inherit_cache = True
    name = "smaller"


class _Holds(FunctionElement[bool]):
    type = Boolean()
    inherit_cache = True
    name = "holds"


def larger(one: Any, other: Any) -> _Larger:  # noqa: ANN401 - numbers, columns, parameters
    """Return the larger of two numbers, neither of which is NULL."""
    return _Larger(one, other)


def smaller(one: Any, other: Any) -> _Smaller:  # noqa: ANN401 - as above
    """Return the smaller of two numbers, neither of which is NULL."""
    return _Smaller(one, other)


def holds(whole: Any, part: Any) -> _Holds:  # noqa: ANN401 - as above
    """Return the condition that bytes hold others, or a text another."""
    return _Holds(whole, part)


def _arguments(element: FunctionElement[Any], compiler: SQLCompiler, **options: Any) -> list[str]:  # noqa: ANN401 - SQLAlchemy's
    return [compiler.process(clause, **options) for clause in element.clauses]


@compiles(_Larger, "sqlite")
def _larger_sqlite(element: _Larger, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's
    return f"max({', '.join(_arguments(element, compiler, **options))})"


@compiles(_Larger, "postgresql")
def _larger_postgresql(element: _Larger, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's
    return f"greatest({', '.join(_arguments(element, compiler, **options))})"


@compiles(_Smaller, "sqlite")
def _smaller_sqlite(element: _Smaller, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's
    return f"min({', '.join(_arguments(element, compiler, **options))})"


@compiles(_Smaller, "postgresql")
def _smaller_postgresql(element: _Smaller, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's
    return f"least({', '.join(_arguments(element, compiler, **options))})"


@compiles(_Holds, "sqlite")
def _holds_sqlite(element: _Holds, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's
    whole, part = _arguments(element, compiler, **options)
    return f"instr({whole}, {part}) > 0"


@compiles(_Holds, "postgresql")
def _holds_postgresql(element: _Holds, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's
    whole, part = _arguments(element, compiler, **options)
    return f"position({part} IN {whole}) > 0"


# PostgreSQL's own clause may name a constraint instead of columns, and its compiler looks for that. Importing it costs
# every command more than these two functions.
@compiles(OnConflictDoNothing, SERVER_DIALECT)
def _do_nothing_postgresql(element: Any, compiler: Any, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's
    element.constraint_target = None
    return str(compiler.visit_on_conflict_do_nothing(element, **options))


@compiles(OnConflictDoUpdate, SERVER_DIALECT)
def _do_update_postgresql(element: Any, compiler: Any, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's
    element.constraint_target = None
    return str(compiler.visit_on_conflict_do_update(element, **options))
