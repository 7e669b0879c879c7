"""The ledger's tables are the same in a file and on a server, and what this code expects."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Inspector, inspect, text
from sqlalchemy.sql.sqltypes import NullType

from vps_bridge.ledger import Ledger
from vps_bridge.ledger.tables import Base

INDEXES_OF = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
    "postgresql": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'omi_ledger'",
}


def test_tables_are_what_the_migrations_make(ledger):
    with ledger._database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        kind = connection.dialect.name
        made = dict(connection.execute(text(INDEXES_OF[kind])).all())
    indexes = {index.name: index for table in Base.metadata.tables.values() for index in table.indexes}
    assert set(indexes) <= set(made)
    for name, index in indexes.items():
        where = index.dialect_options[kind]["where"]
        assert (where is None) == (" WHERE " not in made[name]), name
        if where is not None and kind == "sqlite":  # the server writes conditions its own way
            assert str(where) in made[name]


def describe(inspector: Inspector, table: str) -> dict[str, object]:
    """A table as it is: what its columns hold and may lack, what is unique, whom it belongs to, what it is asked by."""
    columns = inspector.get_columns(table)
    return {
        "columns": {column["name"]: (kind_of(column["type"]), column["nullable"]) for column in columns},
        "defaults": {column["name"] for column in columns if column["default"]},
        "key": inspector.get_pk_constraint(table)["constrained_columns"],
        "unique": sorted(found["column_names"] for found in inspector.get_unique_constraints(table)),
        "of": [
            (found["constrained_columns"], found["referred_table"], found["options"].get("ondelete"))
            for found in inspector.get_foreign_keys(table)
        ],
        "indexes": {
            found["name"]: found["column_names"]
            for found in inspector.get_indexes(table)
            if "duplicates_constraint" not in found and "expressions" not in found  # which SQLite does not tell
        },
    }


def kind_of(column: object) -> str:
    """What a column holds, in the same words for both."""
    assert not isinstance(column, NullType)
    kinds = {"BIGINT": "INTEGER", "BYTEA": "BLOB", "DOUBLE": "FLOAT", "DOUBLE_PRECISION": "FLOAT"}
    name = type(column).__name__
    return kinds.get(name, name)


def test_a_server_has_the_tables_of_a_file(tmp_path, ledger_server):
    described = []
    for server in (None, ledger_server):
        ledger = Ledger(tmp_path / str(server is None), exclusive=server is None, server=server)
        with ledger._database.reading() as connection:
            inspector = inspect(connection)
            described.append({table: describe(inspector, table) for table in Base.metadata.tables})
        ledger.close()
    assert described[0] == described[1]
