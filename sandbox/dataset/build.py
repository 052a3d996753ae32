"""Builds the data of the imitated company; the same seed, scale and now give the same bytes."""

from random import Random

from sandbox.account.event_log import EventLog
from sandbox.account.state import AccountState
from sandbox.dataset import (
    activity,
    catalogs,
    channels,
    company,
    customers,
    edge_cases,
    fields,
    link_plan,
    live_facts,
)
from sandbox.dataset.crm import DatasetBuilder
from sandbox.webhooks.outbox import WebhookOutbox


def build(state: AccountState) -> None:
    """Fills an empty account."""
    state.event_log = event_log = EventLog(state)
    state.outbox = WebhookOutbox(state)
    pipelines = company.build(state)
    found = fields.build(state)
    planned = link_plan.build(state)
    builder = DatasetBuilder(state, planned, found, pipelines, event_log,
                             Random(f"crm {state.options.seed}"))
    builder.build()
    catalogs.build(state, planned)
    customers.build(builder)
    activity.build(builder)
    channels.build(builder)
    edge_cases.build(state)
    if state.options.odd:
        live_facts.build(state)
    event_log.finish_bulk()
