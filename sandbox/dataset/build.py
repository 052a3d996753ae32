"""Builds the imitated company; the same seed, scale and now give the same bytes."""

from random import Random

from sandbox.account.event_log import Journal
from sandbox.account.state import World
from sandbox.dataset import activity, catalogs, channels, company, customers, edge_cases, fields, link_plan, rare_attributes
from sandbox.dataset.crm import Builder
from sandbox.webhooks.outbox import Hooks

__all__ = ["build"]


def build(world: World) -> None:
    """Fill an empty account."""
    world.journal = Journal(world)
    world.hooks = Hooks(world)
    pipelines = company.build(world)
    found = fields.build(world)
    planned = link_plan.build(world)
    builder = Builder(world, planned, found, pipelines, world.journal, Random(f"crm {world.options.seed}"))
    builder.build()
    catalogs.build(world, planned)
    customers.build(builder)
    activity.build(builder)
    channels.build(builder)
    edge_cases.build(world)
    rare_attributes.build(world)
    world.journal.settle()
