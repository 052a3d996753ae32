"""Dimensions and measures that several pages share."""

from pipelines.bi.dashboards.spec import Dimension, Measure, Unit, Words

MONTH = Dimension("month", Words("Period", "Период"), is_month=True)
MANAGER = Dimension("responsible_user", Words("Manager", "Менеджер"), is_user=True)
STAGE = Dimension("status_label", Words("Stage", "Этап"), is_stage=True,
                  missing=Words("(unknown stage)", "(неизвестный этап)"))

DEALS = Measure("deals", Words("Deals", "Сделки"), "sum(deals)")
VALUE = Measure("value", Words("Value", "Сумма"), "sum(value)", unit=Unit.MONEY)
EXPECTED = Measure("expected_value", Words("Expected", "Прогноз"), "sum(expected_value)", unit=Unit.MONEY)
WON = Measure("won", Words("Won", "Выиграно"), "sum(won)")
LOST = Measure("lost", Words("Lost", "Проиграно"), "sum(lost)", is_better_lower=True)
WON_VALUE = Measure("won_value", Words("Won value", "Сумма выигранных"), "sum(won_value)", unit=Unit.MONEY)
WIN_RATE = Measure("win_rate", Words("Win rate", "Доля выигранных"), "sum(won)", "sum(won) + sum(lost)",
                   Unit.SHARE)
AVERAGE_VALUE = Measure("average_value", Words("Average won deal", "Средний чек"), "sum(won_value)",
                        "sum(won)", Unit.MONEY)
CYCLE_DAYS = Measure("cycle_days", Words("Cycle, days", "Цикл, дней"), "sum(cycle_days)", "sum(won)",
                     Unit.DAYS, is_better_lower=True)
