"""Control: deals, tasks and records that need a hand, each with a link to its card."""

from pipelines.bi.dashboards.pages.common import VALUE
from pipelines.bi.dashboards.spec import Dimension, Kind, ListColumn, Measure, Page, Tile, Unit, Words

COUNT = Measure("deals", Words("Deals", "Сделки"), "count(*)", is_better_lower=True)
PRICE = Measure("value", VALUE.titles, "sum(price)", unit=Unit.MONEY)
TASKS = Measure("tasks", Words("Tasks", "Задачи"), "count(*)", is_better_lower=True)
GROUPS = Measure("groups", Words("Groups", "Группы"), "count(*)", is_better_lower=True)
EMPTY = Measure("empty", Words("Empty", "Пусто"), "sum(empty)", is_better_lower=True)
IN_STAGE = Measure("deals", Words("Deals in the stage", "Сделок на этапе"), "sum(deals)")
EMPTY_SHARE = Measure("share_empty", Words("Share", "Доля"), "sum(empty)", "sum(deals)", Unit.SHARE,
                      is_better_lower=True)
KINDS = {"leads": Words("deal", "сделка"), "contacts": Words("contact", "контакт"),
         "companies": Words("company", "компания"), "customers": Words("customer", "покупатель")}
SHARED = {"phone": Words("phone", "телефон"), "email": Words("e-mail", "почта")}
NAME = ListColumn("name", Words("Deal", "Сделка"), Unit.NAME, "coalesce(nullif(name, ''), lead_id::text)")
PIPELINE = ListColumn("pipeline", Words("Pipeline", "Воронка"))
STAGE = ListColumn("status", Words("Stage", "Этап"))
MANAGER = ListColumn("responsible_user", Words("Manager", "Менеджер"), Unit.USER)
DEAL_PRICE = ListColumn("price", Words("Value", "Сумма"), Unit.MONEY)
PIPELINE_OF = Dimension("pipeline", Words("Pipeline", "Воронка"))
STAGE_OF = Dimension("status_label", Words("Stage", "Этап"), is_stage=True)
FIELD_OF = Dimension("field", Words("Field", "Поле"))
KIND_OF = Dimension("entity_type", Words("Whose", "Чьё поле"), values=KINDS)

NUMBERS = (Tile("stuck_count", "stuck_deals", Kind.NUMBER, Words("Stuck deals", "Застрявшие сделки"),
                (COUNT,)),
           Tile("stuck_value", "stuck_deals", Kind.NUMBER, Words("Value stuck", "Сумма в застрявших"),
                (PRICE,)),
           Tile("without_task_count", "deals_without_task", Kind.NUMBER,
                Words("Deals without a task", "Сделки без задач"), (COUNT,)),
           Tile("overdue_count", "overdue_tasks", Kind.NUMBER, Words("Overdue tasks", "Просроченные задачи"),
                (TASKS,)),
           Tile("empty_count", "empty_required_fields", Kind.NUMBER,
                Words("Empty required fields", "Пустые обязательные поля"), (EMPTY,)),
           Tile("duplicate_count", "duplicates", Kind.NUMBER, Words("Groups of duplicates", "Группы дублей"),
                (GROUPS,)))

LISTS = (Tile("stuck_deals", "stuck_deals", Kind.LIST, Words("Stuck deals", "Застрявшие сделки"),
              hints=Words("In their stage for longer than nine in ten deals were; the largest first",
                          "На этапе дольше, чем девять из десяти сделок; сначала крупные"),
              columns=(NAME, PIPELINE, STAGE, MANAGER, DEAL_PRICE,
                       ListColumn("days", Words("Days in stage", "Дней на этапе"), Unit.DAYS,
                                  "hours_in_stage / 24"),
                       ListColumn("usual", Words("Usually up to", "Обычно до"), Unit.DAYS, "p90_hours / 24")),
              order="price DESC NULLS LAST, lead_id"),
         Tile("deals_without_task", "deals_without_task", Kind.LIST,
              Words("Open deals without a task", "Открытые сделки без задач"),
              hints=Words("Nobody is going to do anything about them; the largest first",
                          "По ним ничего не запланировано; сначала крупные"),
              columns=(NAME, PIPELINE, STAGE, MANAGER, DEAL_PRICE,
                       ListColumn("created_date", Words("Created", "Создана"), Unit.DATE)),
              order="price DESC NULLS LAST, lead_id"),
         Tile("overdue_tasks", "overdue_tasks", Kind.LIST, Words("Overdue tasks", "Просроченные задачи"),
              hints=Words("The longest overdue first", "Сначала самые давние"),
              columns=(ListColumn("text", Words("Task", "Задача"), Unit.NAME,
                                  "coalesce(nullif(text, ''), task_type, task_id::text)"),
                       ListColumn("lead", Words("Deal", "Сделка"), Unit.NAME), MANAGER,
                       ListColumn("due_date", Words("Due", "Срок"), Unit.DATE),
                       ListColumn("days_overdue", Words("Days overdue", "Дней просрочки"), Unit.DAYS)),
              order="complete_till, task_id"),
         Tile("duplicates", "duplicates", Kind.LIST, Words("Duplicates", "Дубли"),
              hints=Words("Contacts, or companies, with the same telephone number or e-mail address",
                          "Контакты или компании с одним телефоном или адресом почты"),
              columns=(ListColumn("value", Words("Number or address", "Телефон или адрес"), Unit.NAME),
                       ListColumn("entity_type", Words("What", "Что"), values=KINDS),
                       ListColumn("shared", Words("Shared", "Общее"), values=SHARED),
                       ListColumn("records", Words("Records", "Записей"), Unit.COUNT),
                       ListColumn("urls", Words("Cards", "Карточки"), Unit.LINKS)),
              order="records DESC, entity_type, shared, value"),
         Tile("empty_fields", "empty_required_fields", Kind.TABLE,
              Words("Required fields that are empty", "Пустые обязательные поля"),
              (EMPTY, IN_STAGE, EMPTY_SHARE), (PIPELINE_OF, STAGE_OF, FIELD_OF, KIND_OF)),
         Tile("empty_field_deals", "empty_required_fields", Kind.LIST,
              Words("Deals with an empty required field", "Сделки с пустым обязательным полем"),
              columns=(ListColumn("deal", Words("Deal", "Сделка"), Unit.COUNT, "one.lead_id"), PIPELINE,
                       STAGE, ListColumn("field", Words("Field", "Поле"))),
              lateral="CROSS JOIN LATERAL unnest(lead_ids, urls) AS one (lead_id, url)",
              order="one.lead_id DESC, field"))

CONTROL = Page("control", Words("Control", "Контроль"), (*NUMBERS, *LISTS))
