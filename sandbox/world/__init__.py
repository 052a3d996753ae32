"""Builds the imitated company; the same seed, scale and now give the same bytes."""

from random import Random

from sandbox.hooks import Hooks
from sandbox.journal import Journal
from sandbox.state import World
from sandbox.world import activity, awkward, catalogs, company, customers, extras, fields, plan, rare
from sandbox.world.crm import Builder

__all__ = ["build"]


def build(world: World) -> None:
    """Fill an empty account."""
    world.journal = Journal(world)
    world.hooks = Hooks(world)
    pipelines = company.build(world)
    found = fields.build(world)
    planned = plan.build(world)
    builder = Builder(world, planned, found, pipelines, world.journal, Random(f"crm {world.options.seed}"))
    builder.build()
    catalogs.build(world, planned)
    customers.build(builder)
    activity.build(builder)
    extras.build(builder)
    awkward.build(world)
    rare.build(world)
    world.journal.settle()
