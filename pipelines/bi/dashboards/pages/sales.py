"""Sales: what is open, what was won and lost, the funnel, why deals are lost, plan and forecast."""

from pipelines.bi.dashboards.pages.common import (
    AVERAGE_VALUE,
    CYCLE_DAYS,
    DEALS,
    EXPECTED,
    LOST,
    MANAGER,
    MONTH,
    STAGE,
    VALUE,
    WIN_RATE,
    WON,
    WON_VALUE,
)
from pipelines.bi.dashboards.spec import Dimension, Kind, Measure, Page, Tile, Unit, Words

REASON = Dimension("loss_reason", Words("Loss reason", "Причина отказа"),
                   missing=Words("(no reason given)", "(причина не указана)"))
STAGE_BEFORE = Dimension("status_before_label", Words("Last stage", "Последний этап"), is_stage=True,
                         missing=Words("(closed at once)", "(закрыта сразу)"))
REACHED = Measure("reached", Words("Reached", "Дошли"), "sum(reached)")
ENTERED_PIPELINE = Measure("deals", Words("Deals created", "Создано сделок"), "sum(deals)")
PLAN_VALUE = Measure("plan_value", Words("Plan", "План"), "sum(plan_value)", unit=Unit.MONEY)
FACT_VALUE = Measure("fact_value", Words("Fact", "Факт"), "sum(fact_value)", unit=Unit.MONEY)
PLAN_DEALS = Measure("plan_deals", Words("Plan, deals", "План, сделок"), "sum(plan_deals)")
FACT_DEALS = Measure("fact_deals", Words("Fact, deals", "Факт, сделок"), "sum(fact_deals)")
PLAN_SHARE = Measure("value_share", Words("Done", "Выполнено"),
                     "sum(fact_value) FILTER (WHERE plan_value IS NOT NULL)", "sum(plan_value)", Unit.SHARE)
PLAN_MONTH = Dimension("closed_month", Words("Month", "Месяц"), sql="to_char(closed_month, 'YYYY-MM')")
ALL_OF_THEM = {"(all)": Words("(all)", "(все)")}
PLAN_OF = Dimension("responsible_user", Words("Manager", "Менеджер"), is_user=True, values=ALL_OF_THEM)
PLAN_PIPELINE = Dimension("pipeline", Words("Pipeline", "Воронка"), values=ALL_OF_THEM)


def _closed(name: str, measure: Measure, titles: Words, hints: Words) -> Tile:
    return Tile(name, "sales_cycle", Kind.NUMBER, titles, (measure,), date="closed_date", hints=hints)


NUMBERS = (Tile("open_value", "forecast", Kind.NUMBER, Words("Open now, value", "В работе сейчас, сумма"),
                (VALUE,),
                hints=Words("Open deals, whatever the period", "Открытые сделки, независимо от периода")),
           Tile("open_deals", "forecast", Kind.NUMBER, Words("Open deals now", "Сделок в работе сейчас"),
                (DEALS,), hints=Words("Incoming leads left out", "Без неразобранного")),
           Tile("expected_value", "forecast", Kind.NUMBER, Words("Forecast", "Прогноз"), (EXPECTED,),
                hints=Words("Value of the open deals × win rate of their stage",
                            "Сумма открытых сделок × доля выигранных из их этапа")),
           _closed("won_value", WON_VALUE, Words("Won", "Продажи"),
                   Words("Value of the deals won in the period", "Сумма сделок, выигранных за период")),
           _closed("won_deals", WON, Words("Deals won", "Выиграно сделок"),
                   Words("By the day of closing", "По дате закрытия")),
           _closed("win_rate", WIN_RATE, Words("Win rate", "Доля выигранных"),
                   Words("Won, of all closed in the period", "Выигранные из всех закрытых за период")),
           _closed("average_value", AVERAGE_VALUE, Words("Average deal", "Средний чек"),
                   Words("Value of a deal won", "Средняя сумма выигранной сделки")),
           _closed("cycle_days", CYCLE_DAYS, Words("Sales cycle", "Цикл сделки"),
                   Words("Days from creation to won, on average", "Дней от создания до выигрыша, в среднем")))

CHARTS = (Tile(
    "funnel", "funnel", Kind.FUNNEL, Words("Sales funnel", "Воронка продаж"), (REACHED, ENTERED_PIPELINE),
    (STAGE,), "created_date", "status_id <> 143", is_per_pipeline=True,
    hints=Words("Deals created in the period that reached the stage: share of all, and of the stage before",
                "Сделки, созданные за период и дошедшие до этапа: доля от всех и от предыдущего этапа")),
          Tile("stages_now", "forecast", Kind.BARS,
               Words("Open deals by stage, now", "В работе по этапам, сейчас"), (VALUE, EXPECTED, DEALS),
               (STAGE,), is_per_pipeline=True,
               hints=Words("Value, and what is expected of it at the stage's win rate",
                           "Сумма и сколько из неё ожидается при доле выигранных этого этапа")),
          Tile("won_by_manager", "sales_cycle", Kind.COLUMNS,
               Words("Won value over time, by manager", "Продажи по времени и менеджерам"), (WON_VALUE, WON),
               (MONTH, MANAGER), "closed_date"),
          Tile("won_and_lost", "sales_cycle", Kind.COLUMNS,
               Words("Deals won and lost", "Выигранные и проигранные сделки"), (WON, LOST, WIN_RATE),
               (MONTH,), "closed_date"),
          Tile("loss_reasons", "win_loss", Kind.HEATMAP,
               Words("Why deals are lost, and where", "Почему и где теряются сделки"), (DEALS, VALUE),
               (REASON, STAGE_BEFORE), "closed_date", "outcome = 'lost'", is_per_pipeline=True,
               hints=Words("Lost deals, by reason and by the last stage that they were in",
                           "Проигранные сделки по причине и последнему этапу")),
          Tile("forecast_by_manager", "forecast", Kind.BARS,
               Words("Forecast by manager", "Прогноз по менеджерам"), (VALUE, EXPECTED, DEALS), (MANAGER,),
               hints=Words("Value of the open deals, and what is expected of it",
                           "Сумма открытых сделок и сколько из неё ожидается")),
          Tile("plan_fact", "plan_fact", Kind.TABLE, Words("Plan and fact", "План и факт"),
               (PLAN_VALUE, FACT_VALUE, PLAN_SHARE, PLAN_DEALS, FACT_DEALS),
               (PLAN_MONTH, PLAN_OF, PLAN_PIPELINE), "closed_month",
               without_filters=("pipeline", "responsible_user", "source"),
               empty=Words("There are no plans for this period. They are a table of yours: "
                           "INSERT INTO sales_plans (month, value) VALUES ('2026-03-01', 3000000)",
                           "Планов на этот период нет. Их таблица — ваша: "
                           "INSERT INTO sales_plans (month, value) VALUES ('2026-03-01', 3000000)")))

SALES = Page("sales", Words("Sales", "Продажи"), (*NUMBERS, *CHARTS))
