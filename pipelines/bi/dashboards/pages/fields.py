"""Own fields: what deals bring by each select field of the account."""

from pipelines.bi.dashboards.pages.common import AVERAGE_VALUE, LOST, WIN_RATE, WON, WON_VALUE
from pipelines.bi.dashboards.spec import Dimension, Kind, Page, Tile, Words

FIELD = Dimension("field", Words("Field", "Поле"))
OPTION = Dimension("field_value", Words("Value", "Значение"))

TILES = (Tile("won_by_field", "deals_by_field", Kind.BARS, Words("Won value by field", "Продажи по полю"),
              (WON_VALUE, WON, LOST, WIN_RATE, AVERAGE_VALUE), (OPTION,), "closed_date", repeat=FIELD,
              hints=Words("Closed deals in which the field is filled; with several values a deal counts in "
                          "each",
                          "Закрытые сделки, где поле заполнено; при нескольких значениях сделка считается в "
                          "каждом"),
              empty=Words("No deal that was closed in this period has a value of this field",
                          "Ни у одной сделки, закрытой за период, это поле не заполнено")),)

FIELDS = Page("fields", Words("Own fields", "Свои поля"), TILES)
