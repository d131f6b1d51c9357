"""A statement for many rows, compiled once. SQLAlchemy's own handling of a row costs more than SQLite's insert."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Dialect


class ManyRows:
    """An INSERT or UPDATE that is executed for many rows in one call."""

    def __init__(self, statement: sa.Insert | sa.Update) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def execute(self, connection: sa.Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        """Each row has the parameters by name. Raises sa.exc.DBAPIError if the database rejects one."""
        name = connection.dialect.name
        compiled = self._compiled.get(name)
        if compiled is None:
            compiled = self._compiled[name] = _compile(self._statement, connection.dialect)
        if parameters := [compiled.parameters(row) for row in rows]:
            connection.exec_driver_sql(compiled.text, parameters)


class _Compiled(NamedTuple):
    text: str
    names: tuple[str, ...]
    """Parameters in the order of their placeholders."""
    converters: tuple[tuple[int, Callable[[Any], Any]], ...]
    """The places of values that the driver does not take as they are."""

    def parameters(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        values = [row[name] for name in self.names]
        for place, convert in self.converters:
            values[place] = convert(values[place])
        return tuple(values)


def _compile(statement: sa.Insert | sa.Update, dialect: Dialect) -> _Compiled:
    compiled = statement.compile(dialect=dialect)
    names = tuple(compiled.positiontup or ())
    converters = []
    for place, name in enumerate(names):
        kind = compiled.binds[name].type.dialect_impl(dialect)
        if (convert := kind.bind_processor(dialect)) is not None:
            converters.append((place, convert))
    return _Compiled(compiled.string, names, tuple(converters))
