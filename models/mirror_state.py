"""The mirror's own state, in the schema `mirror`: accounts, tokens, rate limits, cursors, hints, erased
people, verifications, runs, quarantine, alerts; last the webhook inbox: addresses given to amoCRM, deliveries
received there, and outcomes of incoming leads."""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import (
    BigInteger,
    Boolean,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from models.base import DateTime, Json, MirrorBase

Instant = TIMESTAMP(timezone=True)


class MirroredAccount(MirrorBase):
    __tablename__ = "accounts"
    __table_args__ = {"comment": "Accounts that this database mirrors"}

    name: Mapped[str] = mapped_column(Text, primary_key=True,
                                      comment="Name of the account here: its partition in Dagster")
    schema_name: Mapped[str] = mapped_column(Text, unique=True, comment="Schema that holds its tables")
    base_url: Mapped[str] = mapped_column(Text, comment="Address of the account, https://….amocrm.ru")
    configured_url: Mapped[str | None] = mapped_column(
        Text, comment="AMOCRM_BASE_URL that base_url came from; it may have moved since")
    account_id: Mapped[int | None] = mapped_column(
        BigInteger, comment="Its id in amoCRM, once known: the schema holds no other account")
    is_blocked: Mapped[bool] = mapped_column(Boolean, server_default="false",
                                             comment="amoCRM answered with its block page")
    is_admin: Mapped[bool | None] = mapped_column(
        Boolean, comment="Whether the token is an administrator's; null: it may not ask")
    facts: Mapped[Json | None] = mapped_column(JSONB(none_as_null=True), comment="What GET account said last")
    learned_at: Mapped[DateTime | None] = mapped_column(Instant, comment="When both were asked last")
    blocked_at: Mapped[DateTime | None] = mapped_column(Instant, comment="When the block page was last seen")
    revoked_at: Mapped[DateTime | None] = mapped_column(
        Instant, comment="When amoCRM last refused access, or told that it was taken away")
    revoked_reason: Mapped[str | None] = mapped_column(Text, comment="How that is known")
    paused_at: Mapped[DateTime | None] = mapped_column(Instant,
                                                       comment="Since when a person wants no syncs of it")
    created_at: Mapped[DateTime] = mapped_column(Instant, server_default=func.now(),
                                                 comment="When it was added here")
    sync_number: Mapped[int] = mapped_column(
        BigInteger, server_default="0",
        comment="Number of its latest sync or verification: an earlier one that has lost its lock writes "
        "nothing more")


def account_key() -> Mapped[str]:
    """The account's name as a part of the primary key."""
    return mapped_column(Text, ForeignKey("accounts.name", ondelete="CASCADE", onupdate="CASCADE"),
                         primary_key=True, comment="Account")


class Token(MirrorBase):
    __tablename__ = "tokens"
    __table_args__ = {"comment": "Tokens, encrypted; one row per account, locked while it is refreshed"}

    account: Mapped[str] = account_key()
    client_id: Mapped[str | None] = mapped_column(Text, comment="Integration id; null for a long-lived token")
    redirect_uri: Mapped[str | None] = mapped_column(Text, comment="Redirect address of the integration")
    client_secret: Mapped[str | None] = mapped_column(Text, comment="Integration secret, encrypted")
    access_token: Mapped[str | None] = mapped_column(Text, comment="Access token, encrypted")
    refresh_token: Mapped[str | None] = mapped_column(Text, comment="Refresh token, encrypted; it works once")
    expires_at: Mapped[DateTime | None] = mapped_column(Instant,
                                                        comment="When the access token ends; null: unknown")
    refreshed_at: Mapped[DateTime | None] = mapped_column(Instant, comment="When the pair was last renewed")
    seed: Mapped[str | None] = mapped_column(
        Text, comment="Fingerprint of the configured token that this row came from")
    dead_reason: Mapped[str | None] = mapped_column(
        Text, comment="Why the tokens are known to be dead; null while they work")
    spent_seeds: Mapped[list[str] | None] = mapped_column(
        ARRAY(Text), comment="Fingerprints of configured tokens that were used up here before")


class CandidateToken(MirrorBase):
    __tablename__ = "unproven_tokens"
    __table_args__ = {
        "comment": "Configured pairs, encrypted, that amoCRM has not yet said to be of the account that "
        "they were configured for"}

    seed: Mapped[str] = mapped_column(Text, primary_key=True,
                                      comment="Fingerprint of the configured refresh token")
    account: Mapped[str] = mapped_column(
        Text, ForeignKey("accounts.name", ondelete="CASCADE", onupdate="CASCADE"), index=True,
                                         comment="Account that it was first configured for")
    client_id: Mapped[str | None] = mapped_column(Text, comment="Integration id")
    redirect_uri: Mapped[str | None] = mapped_column(Text, comment="Redirect address of the integration")
    client_secret: Mapped[str | None] = mapped_column(Text, comment="Integration secret, encrypted")
    access_token: Mapped[str | None] = mapped_column(Text, comment="Access token, encrypted")
    refresh_token: Mapped[str | None] = mapped_column(Text, comment="Refresh token, encrypted; it works once")
    expires_at: Mapped[DateTime | None] = mapped_column(Instant,
                                                        comment="When the access token ends; null: unknown")
    refreshed_at: Mapped[DateTime | None] = mapped_column(Instant, comment="When the pair was last renewed")
    dead_reason: Mapped[str | None] = mapped_column(
        Text, comment="Why amoCRM did not take it; null: it was not asked, or took it")
    asked_at: Mapped[DateTime] = mapped_column(Instant, server_default=func.now(),
                                               comment="When amoCRM was last asked")


class RateBudget(MirrorBase):
    __tablename__ = "rate_budgets"
    __table_args__ = {"comment": "When the next request may be sent, for every process at once"}

    key: Mapped[str] = mapped_column(Text, primary_key=True,
                                     comment="What the budget is for: an account's host or an egress address")
    next_grant_at: Mapped[DateTime] = mapped_column(Instant, server_default=func.now(),
                                                    comment="Earliest moment of the next request")
    slow_until: Mapped[DateTime | None] = mapped_column(Instant,
                                                        comment="Until then half the rate, after a 429")
    requests: Mapped[int] = mapped_column(BigInteger, server_default="0",
                                          comment="Requests that took a slot here, of every process")
    throttled: Mapped[int] = mapped_column(BigInteger, server_default="0",
                                           comment="Answers 429: too many requests")


class Cursor(MirrorBase):
    __tablename__ = "cursors"
    __table_args__ = {"comment": "Where each list resumes; written in the transaction that lands the rows"}

    account: Mapped[str] = account_key()
    entity: Mapped[str] = mapped_column(Text, primary_key=True, comment="Entity")
    listing: Mapped[str] = mapped_column(Text, primary_key=True, comment="Path of the list")
    position: Mapped[Json] = mapped_column(JSONB, comment="Watermark (unix seconds) and the walk in progress")
    updated_at: Mapped[DateTime] = mapped_column(Instant, server_default=func.now(),
                                                 comment="When it was last advanced")


class Hint(MirrorBase):
    __tablename__ = "hints"
    __table_args__ = {
        "comment": "Records to read again: told by events, by webhooks, by the other side of a link, "
        "or missing in a sweep"}

    account: Mapped[str] = account_key()
    listing: Mapped[str] = mapped_column(Text, primary_key=True, comment="Path of the list")
    key: Mapped[str] = mapped_column(Text, primary_key=True, comment="Id of the record")
    told_at: Mapped[DateTime] = mapped_column(
        Instant, comment="What it tells of happened then: the record has to be read later than that")
    deleted_at: Mapped[DateTime | None] = mapped_column(
        Instant, comment="When a delete event says that it was deleted")
    is_suspect: Mapped[bool] = mapped_column(Boolean, server_default="false",
                                             comment="Nothing but its absence from a whole read tells of it")
    of_links: Mapped[bool] = mapped_column(Boolean, server_default="false",
                                           comment="Its links may have changed hands: merged, or restored")
    version: Mapped[int] = mapped_column(BigInteger, server_default="1", comment="Counts what told of it")
    hooked_at: Mapped[DateTime | None] = mapped_column(Instant,
                                                       comment="When a webhook told of it; null: none did")


class SuppressedRecord(MirrorBase):
    __tablename__ = "forgotten"
    __table_args__ = {
        "comment": "People who were erased here and may not come back until that is lifted: their ids, "
        "and nothing else of them"}

    account: Mapped[str] = account_key()
    entity: Mapped[str] = mapped_column(Text, primary_key=True, comment="Entity")
    key: Mapped[str] = mapped_column(Text, primary_key=True, comment="Id of the record")
    because: Mapped[str | None] = mapped_column(
        Text, comment="Null: it was forgotten itself. Else the record (contacts/123) that it was on: what "
                      "points at it may not come back either")
    forgotten_at: Mapped[DateTime] = mapped_column(Instant, server_default=func.now(),
                                                   comment="When it was erased")


class Verification(MirrorBase):
    __tablename__ = "verifications"
    __table_args__ = (Index(None, "account", "entity", "began_at"),
                      {"comment": "One row per verification and entity: does the mirror equal the account?"})

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True, comment="Number of the row")
    run_id: Mapped[str] = mapped_column(Text, index=True, comment="Verification that it belongs to")
    account: Mapped[str] = mapped_column(
        Text, ForeignKey("accounts.name", ondelete="CASCADE", onupdate="CASCADE"), comment="Account")
    entity: Mapped[str] = mapped_column(Text, comment="Entity")
    state: Mapped[str] = mapped_column(Text,
                                       comment="equal, different, repaired, incomplete, skipped or failed")
    reason: Mapped[str | None] = mapped_column(Text, comment="Why it is not complete")
    began_at: Mapped[DateTime] = mapped_column(
        Instant, comment="Start of the first request; what follows was true from then …")
    ended_at: Mapped[DateTime] = mapped_column(Instant, comment="… until the end of the last")
    compared: Mapped[int] = mapped_column(BigInteger, comment="Records read and compared")
    missing: Mapped[int] = mapped_column(BigInteger,
                                         comment="Visible in amoCRM and not here, after a second look")
    extra: Mapped[int] = mapped_column(BigInteger,
                                       comment="Alive here and not visible in amoCRM, after a second look")
    stale: Mapped[int] = mapped_column(BigInteger, comment="Here with other content, after a second look")
    examples: Mapped[Json | None] = mapped_column(JSONB(none_as_null=True),
                                                  comment="Up to 20 keys of what differs")
    requests: Mapped[int] = mapped_column(BigInteger, comment="Requests spent")


class SyncRun(MirrorBase):
    __tablename__ = "sync_runs"
    __table_args__ = (Index(None, "account", "entity", "started_at"),
                      {"comment": "One row per run and entity"})

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True, comment="Number of the row")
    run_id: Mapped[str] = mapped_column(Text, index=True, comment="Run that it belongs to")
    account: Mapped[str] = mapped_column(
        Text, ForeignKey("accounts.name", ondelete="CASCADE", onupdate="CASCADE"), comment="Account")
    entity: Mapped[str] = mapped_column(Text, comment="Entity")
    state: Mapped[str] = mapped_column(Text, comment="running, complete, skipped, incomplete or failed")
    mode: Mapped[str | None] = mapped_column(Text,
                                             comment="How it was read: snapshot, sweep, window, newest first")
    reason: Mapped[str | None] = mapped_column(Text, comment="Why it was skipped, is incomplete or failed")
    started_at: Mapped[DateTime] = mapped_column(Instant, server_default=func.now(), comment="Start")
    finished_at: Mapped[DateTime | None] = mapped_column(
        Instant, comment="End; null while it runs or when it was killed")
    seen: Mapped[int] = mapped_column(BigInteger, server_default="0", comment="Records read")
    inserted: Mapped[int] = mapped_column(BigInteger, server_default="0",
                                          comment="Rows inserted, child rows included")
    updated: Mapped[int] = mapped_column(BigInteger, server_default="0",
                                         comment="Rows updated, child rows included")
    deleted: Mapped[int] = mapped_column(BigInteger, server_default="0",
                                         comment="Rows tombstoned, and child rows deleted")
    quarantined: Mapped[int] = mapped_column(BigInteger, server_default="0",
                                             comment="Records put into quarantine")
    requests: Mapped[int] = mapped_column(BigInteger, server_default="0", comment="Requests spent")
    retries: Mapped[int] = mapped_column(
        BigInteger, server_default="0",
        comment="Requests sent again after a passing failure of amoCRM's or the network's; 429s do not count")
    seconds: Mapped[Decimal | None] = mapped_column(Numeric, comment="Seconds it took")
    is_admin: Mapped[bool | None] = mapped_column(
        Boolean, comment="Whether the token saw everything, as an administrator's does; null: unknown")
    watermark: Mapped[DateTime | None] = mapped_column(Instant,
                                                       comment="The list is complete up to this moment")


class Quarantine(MirrorBase):
    __tablename__ = "quarantine"
    __table_args__ = {"comment": "Records that could not become rows, kept until they can"}

    account: Mapped[str] = account_key()
    entity: Mapped[str] = mapped_column(Text, primary_key=True, comment="Entity")
    record_key: Mapped[str] = mapped_column(Text, primary_key=True,
                                            comment="Id of the record, or a hash of it when it has none")
    reason: Mapped[str] = mapped_column(Text, comment="Why it could not become a row")
    request: Mapped[str] = mapped_column(Text, comment="Request that brought it")
    payload: Mapped[str] = mapped_column(Text, comment="The record as received")
    first_seen_at: Mapped[DateTime] = mapped_column(Instant, server_default=func.now(),
                                                    comment="When it first came")
    last_seen_at: Mapped[DateTime] = mapped_column(Instant, server_default=func.now(),
                                                   comment="When it last came")
    times: Mapped[int] = mapped_column(Integer, server_default="1", comment="How often it came")


class Alert(MirrorBase):
    __tablename__ = "alerts"
    __table_args__ = {
        "comment": "Problems that people were alerted to and whose end they have not been told: one row per "
        "account, problem and channel"}

    account: Mapped[str] = account_key()
    problem: Mapped[str] = mapped_column(
        Text, primary_key=True, comment="access, block, failed, stale, quarantine or webhook")
    channel: Mapped[str] = mapped_column(Text, primary_key=True,
                                         comment="e-mail, Slack, Telegram or the webhook")
    alerted_at: Mapped[DateTime] = mapped_column(Instant, server_default=func.now(),
                                                 comment="When the channel took the message")


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
