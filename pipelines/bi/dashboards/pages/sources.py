"""Sources: where deals come from, and what becomes of them."""

from pipelines.bi.dashboards.pages.common import MONTH
from pipelines.bi.dashboards.spec import Dimension, Kind, Measure, Page, Tile, Unit, Words

IS_WON, IS_LOST = "count(*) FILTER (WHERE outcome = 'won')", "count(*) FILTER (WHERE outcome = 'lost')"
WON_SUM = "sum(price) FILTER (WHERE outcome = 'won')"
CREATED = Measure("deals", Words("Deals created", "Создано сделок"), "count(*)")
WON = Measure("won", Words("Of them won", "Из них выиграно"), IS_WON)
LOST = Measure("lost", Words("Of them lost", "Из них проиграно"), IS_LOST, is_better_lower=True)
WON_VALUE = Measure("won_value", Words("Won value", "Сумма выигранных"), WON_SUM, unit=Unit.MONEY)
WIN_RATE = Measure("win_rate", Words("Win rate", "Доля выигранных"), IS_WON, f"{IS_WON} + {IS_LOST}",
                   Unit.SHARE)
AVERAGE = Measure("average_value", Words("Average won deal", "Средний чек"), WON_SUM, IS_WON, Unit.MONEY)
UNKNOWN = {"unknown": Words("(unknown)", "(неизвестно)")}
CHANNEL = Dimension("channel", Words("Channel", "Канал"), values=UNKNOWN)
CAMPAIGN = Dimension("utm_campaign", Words("Campaign", "Кампания"))
CATEGORY = Dimension("unsorted_category", Words("Came in by", "Как пришла"),
                     values={"sip": Words("call", "звонок"), "mail": Words("e-mail", "почта"),
                             "forms": Words("form", "форма"), "chats": Words("chat", "чат")},
                     missing=Words("made by hand or by an integration", "создана вручную или интеграцией"))
WHERE = "NOT is_incoming"
HINT = Words("Deals created in the period, and what has become of them",
             "Сделки, созданные за период, и что с ними стало")

TILES = (Tile("created_deals", "attribution", Kind.NUMBER, Words("New deals", "Новые сделки"), (CREATED,),
              date="created_date", where=WHERE, hints=Words("Created in the period", "Созданы за период")),
         Tile("created_won_value", "attribution", Kind.NUMBER, Words("Won of them", "Продажи по ним"),
              (WON_VALUE,), date="created_date", where=WHERE, hints=Words("Until now", "На сегодня")),
         Tile("created_win_rate", "attribution", Kind.NUMBER, Words("Win rate of them", "Доля выигранных"),
              (WIN_RATE,), date="created_date", where=WHERE,
              hints=Words("Of those that are closed", "Из уже закрытых")),
         Tile("channels", "attribution", Kind.BARS, Words("Channels", "Каналы"),
              (WON_VALUE, CREATED, WON, LOST, WIN_RATE, AVERAGE), (CHANNEL,), "created_date", WHERE,
              hints=HINT),
         Tile("channels_by_month", "attribution", Kind.COLUMNS,
              Words("New deals by channel", "Новые сделки по каналам"), (CREATED,), (MONTH, CHANNEL),
              "created_date", WHERE),
         Tile("channel_table", "attribution", Kind.TABLE, Words("What channels bring", "Что приносят каналы"),
              (CREATED, WON, LOST, WIN_RATE, WON_VALUE, AVERAGE), (CHANNEL,), "created_date", WHERE,
              hints=HINT),
         Tile("categories", "attribution", Kind.BARS, Words("How deals come in", "Как приходят сделки"),
              (CREATED, WON), (CATEGORY,), "created_date", WHERE),
         Tile("campaigns", "attribution", Kind.TABLE,
              Words("Campaigns (utm_campaign)", "Кампании (utm_campaign)"),
              (CREATED, WON, LOST, WIN_RATE, WON_VALUE, AVERAGE), (CAMPAIGN,), "created_date",
              "NOT is_incoming AND utm_campaign IS NOT NULL",
              empty=Words("No deal of this period has a utm_campaign",
                          "Ни у одной сделки периода нет utm_campaign")))

SOURCES = Page("sources", Words("Sources", "Источники"), TILES)
