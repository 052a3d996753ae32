"""The webhook inbox, in the schema `mirror`: addresses given to amoCRM, deliveries received there, and
outcomes of incoming leads."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from models.base import DateTime, MirrorBase
from models.mirror_state import Instant, account_key


class WebhookAddress(MirrorBase):
    __tablename__ = "webhook_addresses"
    __table_args__ = {
        "comment": "Addresses at which the receiver answers; the secret of each is in amoCRM only"}

    account: Mapped[str] = account_key()
    digest: Mapped[str] = mapped_column(Text, primary_key=True,
                                        comment="SHA-256 of the secret in the address")
    made_at: Mapped[DateTime] = mapped_column(Instant, server_default=func.now(), comment="When it was made")
    checked_at: Mapped[DateTime | None] = mapped_column(Instant,
                                                        comment="When amoCRM was last asked about it")
    is_disabled: Mapped[bool | None] = mapped_column(
        Boolean, comment="amoCRM said then that it is switched off; null: never asked")
    settings: Mapped[list[str] | None] = mapped_column(ARRAY(Text),
                                                       comment="Events that amoCRM said then it tells")
    refused: Mapped[list[str] | None] = mapped_column(ARRAY(Text),
                                                      comment="Events that this account's plan does not tell")


class WebhookDelivery(MirrorBase):
    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(None, "account", "digest", unique=True),
        Index("ix_webhook_deliveries_waiting", "account", "id", postgresql_where=text("heeded_at IS NULL")),
        Index("ix_webhook_deliveries_unsettled", "account", "id",
              postgresql_where=text("settled_at IS NULL")),
        Index(None, "account", "last_received_at"),
        {"comment": "What amoCRM sent, as received: it says what to read again, and nothing "
                    "else is believed of it"})

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True, comment="Number of the row")
    account: Mapped[str] = mapped_column(
        Text, ForeignKey("accounts.name", ondelete="CASCADE", onupdate="CASCADE"), comment="Account")
    digest: Mapped[bytes] = mapped_column(
        LargeBinary, comment="SHA-256 of the body: one row for each, however often it comes")
    body: Mapped[bytes] = mapped_column(LargeBinary, comment="The form, as received")
    received_at: Mapped[DateTime] = mapped_column(Instant, server_default=func.now(),
                                                  comment="When it first came")
    last_received_at: Mapped[DateTime] = mapped_column(Instant, server_default=func.now(),
                                                       comment="When it last came")
    times: Mapped[int] = mapped_column(Integer, server_default="1", comment="How often it came")
    told: Mapped[list[str] | None] = mapped_column(ARRAY(Text),
                                                   comment="What it tells of: leads[update], task[add], …")
    unknown: Mapped[list[str] | None] = mapped_column(ARRAY(Text),
                                                      comment="What of it nobody here understands")
    heeded_at: Mapped[DateTime | None] = mapped_column(
        Instant, comment="When its records were queued to be read again")
    settled_at: Mapped[DateTime | None] = mapped_column(
        Instant, comment="When they had been read, and what changed was committed")


class UnsortedOutcome(MirrorBase):
    __tablename__ = "unsorted_outcomes"
    __table_args__ = {
        "comment": "What became of incoming leads, as webhooks tell it: nothing else does. Whether it is "
        "true, their rows show"}

    account: Mapped[str] = account_key()
    uid: Mapped[str] = mapped_column(Text, primary_key=True, comment="Incoming lead (unsorted.uid)")
    action: Mapped[str] = mapped_column(Text, comment="accept, decline, …")
    leads: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger),
                                                    comment="Leads that it became, or was added to")
    contacts: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger),
                                                       comment="Contacts that it became, or was added to")
    told_at: Mapped[DateTime] = mapped_column(Instant, comment="When amoCRM told of it")
