"""Plans which records are linked, before any record is written: both sides of a link carry it."""

from dataclasses import dataclass, field
from random import Random

from sandbox.account.state import AccountState

LEAD_BASE, PERSON_BASE, CUSTOMER_BASE, ELEMENT_BASE = 21600000, 48200000, 1904400, 2218000
HISTORY_SECONDS = 900 * 86400


@dataclass(slots=True)
class LinkPlan:
    """Counts and links by position; ids are computed from positions. `start` is Unix time."""

    leads: int
    contacts: int
    companies: int
    customers: int
    elements: int
    incoming: int  # leads that are not accepted yet, the newest ones
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
        """Returns the id of the lead at this position."""
        return LEAD_BASE + 3 * place + place % 2

    def contact_id(self, place: int) -> int:
        """Returns a contact's id. Contacts and companies share one id range: contacts are odd."""
        return PERSON_BASE + 2 * place + 1

    def company_id(self, place: int) -> int:
        """Returns a company's id, an even number of the shared range."""
        return PERSON_BASE + 2 * place

    def customer_id(self, place: int) -> int:
        """Returns the id of the customer at this position."""
        return CUSTOMER_BASE + place

    def created_at(self, place: int, count: int, jitter: float) -> int:
        """Returns a record's creation time (Unix seconds); denser towards the present: the account grows."""
        age = (1 - (place + jitter) / count) ** 1.7
        return self.start - 60 - int(HISTORY_SECONDS * age)


def build(state: AccountState) -> LinkPlan:
    """Plans the links of every lead, contact and customer."""
    incoming, rng = max(4, state.options.scale // 100), Random(f"plan {state.options.seed}")
    n = max(1, state.options.scale - incoming)
    plan = LinkPlan(n, max(3, n * 9 // 10), max(2, n * 7 // 20), max(3, n // 10), max(60, n // 50), incoming,
                    state.start)
    for place in range(plan.contacts):
        company = (min(plan.companies - 1, place * plan.companies // plan.contacts) if rng.random() < 0.4
                   else -1)
        plan.contact_company.append(company)
        if company >= 0:
            plan.company_contacts.setdefault(company, []).append(place)
    for place in range(n):
        _plan_lead(plan, place, rng)
    if state.options.scale >= 200 and state.options.odd:
        # one lead with more than a page of links
        plan.lead_contacts[n // 2] = tuple(dict.fromkeys((*plan.lead_contacts[n // 2], *range(64))))
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


def _plan_lead(plan: LinkPlan, place: int, rng: Random) -> None:
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
