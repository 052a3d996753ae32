"""Column factories and table mixins: typed columns that know which API attribute they hold.

A column is declared by one of the functions below. Its SQL type decides how a JSON value becomes a cell
(pipelines/normalize reads nothing else), its comment is what a BI user sees, and its `info` may contain

    path      path of the attribute in the record, if it is not the column's own name
    derived   True if the column repeats what another column already holds, for the convenience of SQL
    refers    "table.column" that the id refers to, in a list that is paged independently
              (schema.md, rule 6: never enforced)
    zero      True if the API writes 0 for "none"

The `info` of a table may contain `zero_is_a_robot`: an id of 0 that refers to it means a robot, not a row.

Instants are `timestamptz` (the API's unix seconds), amounts `numeric`, durations seconds. All columns but
keys are nullable (amocrm-api.md, head: the documentation is incomplete about null).
"""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Boolean, Date, ForeignKey, MetaData, Numeric, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedColumn, declared_attr, mapped_column

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

Path = tuple[str, ...]
Json = Any


class AccountBase(DeclarativeBase):
    """Tables of one amoCRM account. They have no schema of their own: the account's configuration sets it
    (schema.md, rule 1)."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class MirrorBase(DeclarativeBase):
    """The mirror's own state, in the schema `mirror`. BI users never get access to it."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)


def _column(type_: Any, comment: str, *, path: Path = (), refers: str = "", index: bool = False,
            derived: bool = False, zero_means_none: bool = False, name: str = "") -> MappedColumn[Any]:
    info = {"path": path, "refers": refers, "derived": derived, "zero": zero_means_none}
    column: MappedColumn[Any] = mapped_column(type_, comment=comment, index=index or None, nullable=True,
                                              info={key: value for key, value in info.items() if value})
    if name:
        column.column.name = column.column.key = name
    return column


def key(comment: str, type_: Any = BigInteger, *, path: Path = (), refers: str = "",
        index: bool = False) -> MappedColumn[Any]:
    """A part of the primary key, with the API's value."""
    return mapped_column(type_, primary_key=True, autoincrement=False, comment=comment, index=index or None,
                         sort_order=-1,
                         info={name: value for name, value in (("path", path), ("refers", refers)) if value})


def owner(target: str, comment: str, *, path: Path = (), type_: Any = BigInteger) -> MappedColumn[Any]:
    """The parent's key in a child table: part of the primary key, enforced, ON DELETE CASCADE. `path` is set
    if the child element repeats the key."""
    return mapped_column(type_, ForeignKey(target, ondelete="CASCADE"), primary_key=True, autoincrement=False,
                         sort_order=-2, comment=comment,
                         info={"owner": True} | ({"path": path} if path else {}))


def link_owner(target: str, comment: str, *, path: Path) -> MappedColumn[Any]:
    """The record that owns a link, if another list reports the link (see `reported_by`): part of the primary
    key, enforced, ON DELETE CASCADE. A link whose owner is not in the mirror is not inserted."""
    return mapped_column(BigInteger, ForeignKey(target, ondelete="CASCADE"), primary_key=True,
                         autoincrement=False, sort_order=-2, comment=comment, info={"path": path})


def reported_by(target: str, comment: str, *, type_: Any = BigInteger) -> MappedColumn[Any]:
    """The record that reports a link (see `link_owner`); each time it is read, all links that it reported are
    replaced. Part of the primary key, indexed, not enforced."""
    return mapped_column(type_, primary_key=True, autoincrement=False, sort_order=-1, index=True,
                         comment=comment, info={"owner": True, "refers": target})


def integer(comment: str, *, path: Path = (), refers: str = "", index: bool = False, derived: bool = False,
            zero_means_none: bool = False) -> MappedColumn[Any]:
    return _column(BigInteger, comment, path=path, refers=refers, index=index, derived=derived,
                   zero_means_none=zero_means_none)


def text(comment: str, *, path: Path = (), derived: bool = False, refers: str = "",
         index: bool = False) -> MappedColumn[Any]:
    return _column(Text, comment, path=path, derived=derived, refers=refers, index=index)


def flag(comment: str, *, path: Path = (), derived: bool = False) -> MappedColumn[Any]:
    return _column(Boolean, comment, path=path, derived=derived)


def amount(comment: str, *, path: Path = ()) -> MappedColumn[Any]:
    return _column(Numeric, comment, path=path)


def timestamp(comment: str, *, path: Path = (), index: bool = False) -> MappedColumn[Any]:
    return _column(TIMESTAMP(timezone=True), comment, path=path, index=index)


def local_time(comment: str) -> MappedColumn[Any]:
    """A date and time without a time zone; the API writes it as text (amocrm-api.md 5, 24)."""
    return _column(TIMESTAMP(timezone=False), comment)


def integers(comment: str) -> MappedColumn[Any]:
    return _column(ARRAY(BigInteger), comment)


def texts(comment: str) -> MappedColumn[Any]:
    return _column(ARRAY(Text), comment)


def json(comment: str, *, path: Path = (), derived: bool = False, name: str = "") -> MappedColumn[Any]:
    """An object or list of any structure, without its `_links`; `[]` and `{}` are stored as null. `name` is
    the column's name, if the class attribute must have another one (SQLAlchemy reserves `metadata`)."""
    return _column(JSONB(none_as_null=True), comment, path=path, derived=derived, name=name)


class Extra:
    """`_extra`: the attributes that the API returned for this row and no column holds."""

    mirror_extra: Mapped[Json | None] = mapped_column(
        "_extra", JSONB(none_as_null=True), sort_order=903,
        comment="Attributes that the API returned and that have no column here; null when there are none")


class Link(Extra):
    """A link from its owner to a record of another list. The table is part of the view `links`."""


class EntityTable(Extra):
    """The mirror's own columns on every table of an entity (schema.md, rule 4)."""

    mirror_synced_at: Mapped[datetime.datetime] = mapped_column(
        "_synced_at", TIMESTAMP(timezone=True), nullable=False, sort_order=901,
        comment="Start of the request that brought the content now in this row; an "
                "unchanged row is not written")
    mirror_deleted_at: Mapped[datetime.datetime | None] = mapped_column(
        "_deleted_at", TIMESTAMP(timezone=True), sort_order=902,
        comment="Null while the object is visible in amoCRM; else when it was deleted, or "
                "when that was noticed")


class AlsoEmbedded(EntityTable):
    """An entity whose objects also appear embedded in other records, including objects that its list
    omits."""

    mirror_listed: Mapped[bool] = mapped_column(
        "_listed", Boolean, nullable=False, server_default="true", sort_order=904,
        comment="False while the object was only met inside another record and never in its own list")


class Authored:
    """Author and time of a record's creation and of its last change. 0 in created_by and updated_by is a
    robot or the API."""

    @declared_attr
    def created_by(cls) -> Mapped[int | None]:  # noqa: N805
        return integer("User who created it; 0: robot or API", refers="users.id")

    @declared_attr
    def updated_by(cls) -> Mapped[int | None]:  # noqa: N805
        return integer("User who changed it last; 0: robot or API", refers="users.id")

    @declared_attr
    def created_at(cls) -> Mapped[datetime.datetime | None]:  # noqa: N805
        return timestamp("When it was created: an instant, shown in the time zone of the session", index=True)

    @declared_attr
    def updated_at(cls) -> Mapped[datetime.datetime | None]:  # noqa: N805
        return timestamp("When it was changed last; API clients can write it, so it may lie", index=True)


class Assigned(Authored):
    """A record that has a responsible user."""

    @declared_attr
    def responsible_user_id(cls) -> Mapped[int | None]:  # noqa: N805
        return integer("Responsible user (ответственный)", refers="users.id", index=True)

    @declared_attr
    def group_id(cls) -> Mapped[int | None]:  # noqa: N805
        return integer("Department of the responsible user; 0 is the default department",
                       refers="user_groups.id")

    @declared_attr
    def account_id(cls) -> Mapped[int | None]:  # noqa: N805
        return integer("Account, the same in every row", refers="accounts.id")


Decimal = decimal.Decimal
DateTime = datetime.datetime
DateType = Date
Columns = Sequence[str]
