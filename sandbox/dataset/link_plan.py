"""Who is linked to whom: decided before any record is written, because both sides of a link carry it."""

from dataclasses import dataclass, field
from random import Random

from sandbox.account.state import World

LEAD_BASE, PERSON_BASE, CUSTOMER_BASE, ELEMENT_BASE = 21600000, 48200000, 1904400, 2218000
SPAN = 900 * 86400


@dataclass(slots=True)
class Plan:
    """Counts and links by position; the ids follow from the positions."""

    leads: int
    contacts: int
    companies: int
    customers: int
    elements: int
    incoming: int  # leads that are still unsorted, the newest ones
    start: int
    lead_contacts: list[tuple[int, ...]] = field(default_factory=list)
    lead_company: list[int] = field(default_factory=list)  # -1: none
    contact_company: list[int] = field(default_factory=list)
    customer_contacts: list[tuple[int, ...]] = field(default_factory=list)
    contact_leads: dict[int, list[int]] = field(default_factory=dict)
    contact_customers: dict[int, list[int]] = field(default_factory=dict)
    company_leads: dict[int, list[int]] = field(default_factory=dict)
    company_contacts: dict[int, list[int]] = field(default_factory=dict)
    company_customers: dict[int, list[int]] = field(default_factory=dict)

    def lead_id(self, place: int) -> int:
        """The id of the lead in this position."""
        return LEAD_BASE + 3 * place + place % 2

    def contact_id(self, place: int) -> int:
        """Contacts and companies share one range of ids: odd here."""
        return PERSON_BASE + 2 * place + 1

    def company_id(self, place: int) -> int:
        """Even here."""
        return PERSON_BASE + 2 * place

    def customer_id(self, place: int) -> int:
        """The id of the customer in this position."""
        return CUSTOMER_BASE + place

    def born(self, place: int, count: int, jitter: float) -> int:
        """When a record was created: the account grows, so recent times are denser, up to the present."""
        age = (1 - (place + jitter) / count) ** 1.7
        return self.start - 60 - int(SPAN * age)


def build(world: World) -> Plan:
    """Links of every lead, contact and customer."""
    incoming, rng = max(4, world.options.scale // 100), Random(f"plan {world.options.seed}")
    n = max(1, world.options.scale - incoming)
    plan = Plan(n, max(3, n * 9 // 10), max(2, n * 7 // 20), max(3, n // 10), max(60, n // 50), incoming, world.start)
    for place in range(plan.contacts):
        company = min(plan.companies - 1, place * plan.companies // plan.contacts) if rng.random() < 0.4 else -1
        plan.contact_company.append(company)
        if company >= 0:
            plan.company_contacts.setdefault(company, []).append(place)
    for place in range(n):
        _lead(plan, place, rng)
    if world.options.scale >= 200:
        plan.lead_contacts[n // 2] = tuple(dict.fromkeys((*plan.lead_contacts[n // 2], *range(64))))  # more than a page of links
    for place, linked in enumerate(plan.lead_contacts):
        for contact in linked:
            plan.contact_leads.setdefault(contact, []).append(place)
    for place in range(plan.customers):
        contact = place * plan.contacts // plan.customers
        plan.customer_contacts.append((contact,))
        plan.contact_customers.setdefault(contact, []).append(place)
        if place % 3 == 0:
            plan.company_customers.setdefault(place * plan.companies // plan.customers, []).append(place)
    return plan


def _lead(plan: Plan, place: int, rng: Random) -> None:
    linked: tuple[int, ...] = ()
    if rng.random() < 0.95:
        linked = (min(plan.contacts - 1, place * plan.contacts // plan.leads),)
        if rng.random() < 0.15:
            other = rng.randrange(plan.contacts)
            linked += (other,) * (other not in linked)
    company = min(plan.companies - 1, place * plan.companies // plan.leads) if rng.random() < 0.5 else -1
    plan.lead_contacts.append(linked)
    plan.lead_company.append(company)
    if company >= 0:
        plan.company_leads.setdefault(company, []).append(place)
