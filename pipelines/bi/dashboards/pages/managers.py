"""Managers: what each one won and did, how soon they respond, and what is overdue."""

from pipelines.bi.dashboards.pages.common import (
                                                  AVERAGE_VALUE,
                                                  CYCLE_DAYS,
                                                  LOST,
                                                  MANAGER,
                                                  MONTH,
                                                  WIN_RATE,
                                                  WON,
                                                  WON_VALUE,
)
from pipelines.bi.dashboards.spec import Dimension, Kind, Measure, Page, Tile, Unit, Words

MOVES = Measure("moves", Words("Moves", "Переходы по этапам"), "sum(moves)")
TASKS_CREATED = Measure("tasks_created", Words("Tasks created", "Создано задач"), "sum(tasks_created)")
TASKS_DONE = Measure("tasks_completed", Words("Tasks done", "Выполнено задач"), "sum(tasks_completed)")
NOTES = Measure("notes", Words("Notes", "Примечания"), "sum(notes)")
CALLS_IN = Measure("calls_in", Words("Calls in", "Входящие звонки"), "sum(calls_in)")
CALLS_OUT = Measure("calls_out", Words("Calls out", "Исходящие звонки"), "sum(calls_out)")
CALL_MINUTES = Measure("call_minutes", Words("Minutes on the phone", "Минут разговоров"),
                       "sum(call_seconds) / 60.0")
CALLS = Measure("calls", Words("Calls", "Звонки"), "sum(calls)")
ANSWERED = Measure("answered", Words("Answered", "Отвеченные"), "sum(answered)")
UNANSWERED = Measure("unanswered", Words("Unanswered", "Неотвеченные"), "sum(unanswered)",
                     is_better_lower=True)
ANSWERED_SHARE = Measure("answered_share", Words("Answered share", "Доля отвеченных"), "sum(answered)",
                         "sum(calls)", Unit.SHARE)
NEW_DEALS = Measure("deals", Words("New deals", "Новые сделки"), "count(*)")
RESPONDED = Measure("responded_share", Words("Responded", "С ответом"), "count(responded_at)", "count(*)",
                    Unit.SHARE)
RESPONSE_HOURS = Measure("response_hours",
                         Words("First response, working hours", "Первый ответ, рабочих часов"),
                         "sum(working_seconds) / 3600.0", "count(working_seconds)", Unit.HOURS,
                         is_better_lower=True)
OVERDUE = Measure("overdue", Words("Overdue tasks", "Просроченные задачи"), "count(*)", is_better_lower=True)
DAYS_OVERDUE = Measure("days_overdue", Words("Days overdue, on average", "Дней просрочки, в среднем"),
                       "sum(days_overdue)", "count(*)", Unit.DAYS, is_better_lower=True)
WAIT = Dimension("wait", Words("Wait", "Ожидание"),
                 sql=("CASE WHEN responded_at IS NULL THEN 'none' "
                      "WHEN coalesce(working_seconds, response_seconds) <= 900 THEN '15m' "
                      "WHEN coalesce(working_seconds, response_seconds) <= 3600 THEN '1h' "
                      "WHEN coalesce(working_seconds, response_seconds) <= 14400 THEN '4h' ELSE 'later' END"),
                 values={"15m": Words("within 15 minutes", "до 15 минут"),
                         "1h": Words("within an hour", "до часа"),
                         "4h": Words("within 4 hours", "до 4 часов"), "later": Words("later", "позже"),
                         "none": Words("not at all", "без ответа")})
NOT_INCOMING = "NOT is_incoming"

TILES = (Tile("calls", "call_report", Kind.NUMBER, Words("Calls", "Звонки"), (CALLS,), date="day"),
         Tile("answered_share", "call_report", Kind.NUMBER, Words("Calls answered", "Отвечено звонков"),
              (ANSWERED_SHARE,), date="day"),
         Tile("tasks_done", "manager_activity", Kind.NUMBER, Words("Tasks done", "Выполнено задач"),
              (TASKS_DONE,), date="day"),
         Tile("response_hours", "first_response", Kind.NUMBER, Words("First response", "Первый ответ"),
              (RESPONSE_HOURS,), date="created_date", where=NOT_INCOMING,
              hints=Words("Working hours until a person called or wrote, on average",
                          "Рабочих часов до первого звонка или сообщения, в среднем")),
         Tile("responded_share", "first_response", Kind.NUMBER,
              Words("Deals responded to", "Сделки с ответом"), (RESPONDED,), date="created_date",
              where=NOT_INCOMING,
              hints=Words("Of the deals created in the period", "Из созданных за период")),
         Tile("overdue_now", "overdue_tasks", Kind.NUMBER,
              Words("Overdue tasks now", "Просроченные задачи сейчас"), (OVERDUE,)),
         Tile("manager_results", "sales_cycle", Kind.TABLE, Words("Results", "Результаты"),
              (WON_VALUE, WON, LOST, WIN_RATE, AVERAGE_VALUE, CYCLE_DAYS), (MANAGER,), "closed_date",
              hints=Words("Deals closed in the period", "Сделки, закрытые за период")),
         Tile("manager_activity", "manager_activity", Kind.TABLE, Words("Activity", "Активность"),
              (MOVES, TASKS_CREATED, TASKS_DONE, NOTES, CALLS_IN, CALLS_OUT, CALL_MINUTES), (MANAGER,), "day",
              hints=Words("By who was responsible for the record at that moment",
                          "По тому, кто тогда отвечал за запись")),
         Tile("activity_by_month", "manager_activity", Kind.COLUMNS,
              Words("Activity over time", "Активность по времени"),
              (MOVES, TASKS_DONE, NOTES, CALLS_IN, CALLS_OUT), (MONTH,), "day", is_stacked=True),
         Tile("calls_by_manager", "call_report", Kind.BARS, Words("Calls by manager", "Звонки по менеджерам"),
              (ANSWERED, UNANSWERED), (MANAGER,), "day", is_stacked=True),
         Tile("first_response", "first_response", Kind.BARS,
              Words("How soon new deals are responded to", "Как быстро отвечают на новые сделки"),
              (NEW_DEALS,), (MANAGER, WAIT), "created_date", NOT_INCOMING,
              hints=Words("Deals created in the period, by working time until a person called or wrote",
                          "Сделки, созданные за период, по рабочему времени до первого звонка или "
                          "сообщения")),
         Tile("overdue_by_manager", "overdue_tasks", Kind.BARS,
              Words("Overdue tasks, now", "Просроченные задачи, сейчас"), (OVERDUE, DAYS_OVERDUE),
              (MANAGER,)))

MANAGERS = Page("managers", Words("Managers", "Менеджеры"), TILES)
