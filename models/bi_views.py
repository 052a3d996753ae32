"""Stored state of the BI views (`<schema>_bi`): their names, the names of their columns, and which could not
be rebuilt. Also the working hours, holidays and sales plans that the views use.

The views themselves may be dropped at any time. The names must stay, because dashboards depend on them: a
column is never removed (pipelines/bi/wide.py).
"""

from __future__ import annotations

import datetime
from decimal import Decimal

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Date, Double, Integer, Numeric, Text, Time
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from models.base import AccountBase, DateTime, integer, key, text, timestamp


class BiView(AccountBase):
    __tablename__ = "bi_views"
    __table_args__ = {
        "comment": "The views for people, in the schema whose name ends with _bi: when each was built, and "
        "what is wrong with it"}

    name: Mapped[str] = key("Name of the view", Text)
    catalog_id: Mapped[int | None] = integer("List whose elements it shows; null: none")
    digest: Mapped[str | None] = text(
        "Of all that its definition follows from; it is rebuilt when that changes")
    built_at: Mapped[DateTime | None] = timestamp("When it was built last")
    fault: Mapped[str | None] = text(
        "Why it could not be rebuilt and stayed as it was; null: it is as it should be")
    failed_at: Mapped[DateTime | None] = timestamp("When it first could not")


class BiStored(AccountBase):
    __tablename__ = "bi_stored"
    __table_args__ = {
        "comment": "The steps of marts whose rows are stored, in accounts of 100,000 deals and more: of "
        "which moment they are, and what is wrong with them"}

    name: Mapped[str] = key("Name of the step", Text)
    table_name: Mapped[str | None] = text("Table that holds its rows; null: they were never stored")
    marts: Mapped[list[str]] = mapped_column(ARRAY(Text), nullable=False, comment="Marts that read it")
    lists: Mapped[list[str]] = mapped_column(ARRAY(Text), nullable=False,
                                             comment="Lists whose rows it is made from")
    made_from: Mapped[str | None] = text(
        "State of the tables that it was made from; it is refreshed when that changes")
    as_of: Mapped[DateTime | None] = timestamp("It shows these tables as they were at this moment")
    tried_at: Mapped[DateTime | None] = timestamp("When it was refreshed last, or that was tried")
    seconds: Mapped[float | None] = mapped_column(Double, comment="How long that took, in seconds")
    row_count: Mapped[int | None] = integer("Number of its rows")
    fault: Mapped[str | None] = text("Why it could not be refreshed; null: it was")
    failed_at: Mapped[DateTime | None] = timestamp("When it first could not")


class WorkingHours(AccountBase):
    __tablename__ = "working_hours"
    __table_args__ = {
        "comment": "When people work, in the account's time zone: yours to change. A day of the week "
        "without a row is a day off"}

    weekday: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False,
                                         comment="1 Monday … 7 Sunday")
    opens_at: Mapped[datetime.time] = mapped_column(Time, nullable=False, comment="From when")
    closes_at: Mapped[datetime.time] = mapped_column(Time, nullable=False, comment="Until when")


class Holiday(AccountBase):
    __tablename__ = "holidays"
    __table_args__ = {
        "comment": "Days on which nobody works, whatever day of the week they are: yours to fill"}

    day: Mapped[datetime.date] = mapped_column(Date, primary_key=True,
                                               comment="The day, in the account's time zone")
    name: Mapped[str | None] = text("What it is")


class SalesPlan(AccountBase):
    __tablename__ = "sales_plans"
    __table_args__ = (
        CheckConstraint("extract(day FROM month) = 1", name="month_is_its_first_day"),
        {"comment": "Sales plans by month, user and pipeline: yours to fill, as amoCRM does not give out its "
         "own. The view plan_fact compares them with the deals that were won"})

    month: Mapped[datetime.date] = mapped_column(Date, primary_key=True,
                                                 comment="First day of the month")
    responsible_user_id: Mapped[int] = mapped_column(
        BigInteger, primary_key=True, autoincrement=False, server_default="0", info={"refers": "users.id"},
        comment="User whose plan it is; 0: of all users together")
    pipeline_id: Mapped[int] = mapped_column(
        BigInteger, primary_key=True, autoincrement=False, server_default="0",
        info={"refers": "pipelines.id"}, comment="Pipeline of the plan; 0: all pipelines together")
    value: Mapped[Decimal | None] = mapped_column(
        Numeric, comment="Value of the deals to be won, in the account's currency; null: not planned")
    deals: Mapped[int | None] = integer("Number of deals to be won; null: not planned")


class BiColumn(AccountBase):
    __tablename__ = "bi_columns"
    __table_args__ = {
        "comment": "The columns of the wide views: which custom field each one shows. Names stay "
        "when fields are renamed"}

    view_name: Mapped[str] = key("Name of the view", Text)
    column_name: Mapped[str] = key("Name of the column", Text)
    position: Mapped[int] = mapped_column(Integer, nullable=False, comment="Place in the view, from 1")
    data_type: Mapped[str] = mapped_column(Text, nullable=False, comment="Type in Postgres")
    field_id: Mapped[int | None] = integer("Custom field; null: a column of every account's view",
                                           refers="custom_fields.id")
    label: Mapped[str | None] = text(
        "What the field is called in amoCRM now; of a deleted one, what it was called last")
    is_live: Mapped[bool] = mapped_column(Boolean, nullable=False, server_default="true",
                                          comment="False: the field is deleted or has another type now, "
                                          "and the column is empty")
