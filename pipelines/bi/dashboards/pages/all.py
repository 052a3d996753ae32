"""All pages, in the order in which they are shown."""

from pipelines.bi.dashboards.pages.control import CONTROL
from pipelines.bi.dashboards.pages.customers import CUSTOMERS
from pipelines.bi.dashboards.pages.fields import FIELDS
from pipelines.bi.dashboards.pages.managers import MANAGERS
from pipelines.bi.dashboards.pages.sales import SALES
from pipelines.bi.dashboards.pages.sources import SOURCES

PAGES = (SALES, MANAGERS, CONTROL, SOURCES, CUSTOMERS, FIELDS)
