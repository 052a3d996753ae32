"""The page's own words: of the filters, tables, messages and footer. Those of tiles are in the
declaration."""

from __future__ import annotations

from pipelines.bi.dashboards.spec import Words

LANGUAGES = ("ru", "en")
RUSSIAN_COUNTRIES = frozenset(("RU", "BY", "KZ", "KG", "UZ", "TJ", "AM", "AZ", "MD", "UA", "GE"))
"""Countries whose accounts get the report in Russian, if no language is asked for."""

PERIODS = {
    "last_7_days": Words("last 7 days", "последние 7 дней"),
    "last_30_days": Words("last 30 days", "последние 30 дней"),
    "this_month": Words("this month", "этот месяц"),
    "last_month": Words("last month", "прошлый месяц"),
    "this_quarter": Words("this quarter", "этот квартал"),
    "last_quarter": Words("last quarter", "прошлый квартал"),
    "this_year": Words("this year", "этот год"),
    "last_year": Words("last year", "прошлый год"),
    "last_12_months": Words("last 12 months", "последние 12 месяцев"),
    "all": Words("all time", "всё время"),
    "custom": Words("from … to …", "с … по …"),
}

WORDS = {
    "period": Words("Period", "Период"),
    "from": Words("From", "С"),
    "to": Words("To", "По"),
    "table": Words("Table", "Таблица"),
    "copy": Words("Copy", "Копировать"),
    "copied": Words("Copied", "Скопировано"),
    "now": Words("now", "сейчас"),
    "reset": Words("Reset filters", "Сбросить фильтры"),
    "others": Words("(others)", "(остальные)"),
    "total": Words("Total", "Итого"),
    "card": Words("card", "карточка"),
    "of_all": Words("of all", "от всех"),
    "of_before": Words("of the stage before", "от предыдущего"),
    "unit_days": Words("d", "дн."),
    "unit_hours": Words("h", "ч"),
    "nothing": Words(
        "Nothing matches the period and the filters.", "По этому периоду и фильтрам ничего нет."),
    "nothing_now": Words("There is nothing here now.", "Сейчас здесь пусто."),
    "fault": Words(
        "This could not be counted: {}. Run `amocrm-mirror views`, then make the report again.",
        "Посчитать не удалось: {}. Выполните `amocrm-mirror views` и сделайте отчёт заново."),
    "too_large": Words(
        "The account is too large for this tile in one file: see the mart {} in the database.",
        "Аккаунт слишком велик для этой плитки в одном файле: смотрите витрину {} в базе."),
    "ignores": Words("Not filtered by: {}", "Не зависит от фильтров: {}"),
    "months_only": Words(
        "Before {} only whole months are in this file.", "До {} в файле только целые месяцы."),
    "pipeline_shown": Words("Shown: {}. Choose another one above.", "Показана: {}. Другую выберите вверху."),
    "first_of": Words("The first {} of {}.", "Первые {} из {}."),
    "first_only": Words("The first {}; --deals N shows more.", "Первые {}; больше — с --deals N."),
    "lists_left_out": Words(
        "Records are left out of this file (--deals 0).", "Записи в этот файл не вошли (--deals 0)."),
    "compared": Words("against {} in the period before", "против {} за предыдущий период"),
    "no_deals": Words(
        "There are no deals in this mirror yet. Run `amocrm-mirror sync`, then make the report again.",
        "Сделок в копии ещё нет. Выполните `amocrm-mirror sync` и сделайте отчёт заново."),
    "view_fault": Words(
        "The view {} could not be rebuilt, and its figures are those of its older definition: {}",
        "Представление {} не удалось перестроить, его цифры — по старому определению: {}"),
    "made": Words("Made {} ({})", "Составлено {} ({})"),
    "fresh": Words("Deals complete up to {}", "Сделки полны на {}"),
    "not_fresh": Words("Deals were never read completely", "Сделки ещё ни разу не прочитаны полностью"),
    "verified": Words("verified {}: {}", "сверено {}: {}"),
    "not_verified": Words(
        "never verified (`amocrm-mirror verify`)", "ещё не сверялись (`amocrm-mirror verify`)"),
    "freshness": Words("How fresh each list is", "Насколько свеж каждый список"),
    "list": Words("List", "Список"),
    "complete_up_to": Words("Complete up to", "Полон на"),
    "state": Words("Last run", "Последний запуск"),
    "verification": Words("Verified", "Сверено"),
    "loading": Words("Opening …", "Открывается …"),
    "old_browser": Words(
        "This browser is too old for the report: use one of 2023 or later.",
        "Браузер слишком стар для этого отчёта: нужен выпуска 2023 года или новее."),
    "no_script": Words(
        "The report needs JavaScript. It asks the network for nothing.",
        "Отчёту нужен JavaScript. К сети он не обращается."),
    "title": Words("{}: report", "{}: отчёт"),
    "license": Words(
        "Charts: Apache ECharts {}, Apache License 2.0", "Графики: Apache ECharts {}, Apache License 2.0"),
}

STATES = {
    "complete": Words("complete", "полностью"),
    "incomplete": Words("incomplete", "не полностью"),
    "skipped": Words("skipped", "пропущен"),
    "failed": Words("failed", "ошибка"),
    "running": Words("running", "идёт"),
    "interrupted": Words("interrupted", "прерван"),
    "never": Words("never", "не читался"),
    "equal": Words("equal", "совпадает"),
    "different": Words("different", "отличается"),
    "repaired": Words("repaired", "исправлено"),
}

LISTS = {
    "leads": Words("deals", "сделки"),
    "contacts": Words("contacts", "контакты"),
    "companies": Words("companies", "компании"),
    "tasks": Words("tasks", "задачи"),
    "notes": Words("notes", "примечания"),
    "events": Words("events", "события"),
    "customers": Words("customers", "покупатели"),
    "transactions": Words("purchases", "покупки"),
    "pipelines": Words("pipelines", "воронки"),
    "users": Words("users", "пользователи"),
}


def language_of(country: str | None, base_url: str | None) -> str:
    """Returns the language of an account's report: Russian for amocrm.ru and the countries where it is at
    home."""
    return "ru" if country in RUSSIAN_COUNTRIES or (base_url or "").endswith(".amocrm.ru") else "en"
