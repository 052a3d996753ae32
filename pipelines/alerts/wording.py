"""The texts of alerts, in English and Russian. Each says what happened, what was kept, and the cure as a
command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.alerts.problems import ACCESS, BLOCK, FAILED, QUARANTINE, STALE, WEBHOOK, Problem

MAX_CHARACTERS = 3500
"""Telegram takes messages of up to 4,096 characters."""
BEGAN = {
    ACCESS: {
        "en": "amoCRM refuses access since {detail}. What is mirrored stays as it is. Give access again: "
              "`amocrm-mirror auth --account {account}`",
        "ru": "amoCRM не даёт доступа с {detail}. Скопированное остаётся. Дайте доступ снова: "
              "`amocrm-mirror auth --account {account}`"},
    BLOCK: {
        "en": "amoCRM has blocked the account or the address of this server; last seen {detail}. What is "
              "mirrored stays as it is, and amoCRM is asked once an hour. Write to amoCRM's support; to see "
              "whether the block is lifted: `amocrm-mirror doctor --account {account}`",
        "ru": "amoCRM заблокировала аккаунт или адрес этого сервера; последний раз замечено {detail}. "
              "Скопированное остаётся, запрос к amoCRM делается раз в час. Напишите в поддержку amoCRM; "
              "снята ли блокировка, скажет `amocrm-mirror doctor --account {account}`"},
    FAILED: {
        "en": "lists that failed in the last sync: {count}: {detail}. What had landed is kept, and the next "
              "sync tries again. The whole reason: `amocrm-mirror status --account {account}`",
        "ru": "списков, которые не удалось прочитать при последней синхронизации: {count}: {detail}. "
              "Записанное сохранено, следующая синхронизация попробует снова. Причина целиком: "
              "`amocrm-mirror status --account {account}`"},
    STALE: {
        "en": "lists that have not been complete for {hours:g} hours: {count}: {detail}. What is mirrored "
              "stays as it is. Sync and see why: `amocrm-mirror sync --account {account}`",
        "ru": "списков, которые не обновлялись целиком больше {hours:g} ч: {count}: {detail}. Скопированное "
              "остаётся. Запустите и посмотрите, почему: `amocrm-mirror sync --account {account}`"},
    QUARANTINE: {
        "en": "records that could not become rows: {count}: {detail}. They are kept as received in "
              "mirror.quarantine. Each with its reason: `amocrm-mirror status --account {account}`; please "
              "report them",
        "ru": "записей, которые не удалось разложить по столбцам: {count}: {detail}. Они сохранены как "
              "есть в mirror.quarantine. Причина у каждой: `amocrm-mirror status --account {account}`; "
              "пожалуйста, сообщите нам"},
    WEBHOOK: {
        "en": "amoCRM has switched the webhook off, or no longer has it. Nothing is lost: the schedules "
              "bring the changes, later. Switch it on in amoCRM (amoMarket → ⋮ → WebHooks), or register it "
              "again: `amocrm-mirror webhooks subscribe --account {account} --url https://…`",
        "ru": "amoCRM выключила вебхук или больше его не знает. Ничего не потеряно: изменения приносят "
              "расписания, но позже. Включите его в amoCRM (amoМаркет → ⋮ → WebHooks) или "
              "зарегистрируйте снова: `amocrm-mirror webhooks subscribe --account {account} "
              "--url https://…`"},
}
ENDED = {
    ACCESS: {"en": "amoCRM gives access again", "ru": "amoCRM снова даёт доступ"},
    BLOCK: {"en": "the block is lifted", "ru": "блокировка снята"},
    FAILED: {"en": "no list failed in the last sync", "ru": "последняя синхронизация прочитала все списки"},
    STALE: {"en": "every list is current again", "ru": "все списки снова свежие"},
    QUARANTINE: {"en": "no record is in quarantine any more", "ru": "в карантине больше нет записей"},
    WEBHOOK: {"en": "the webhook is on again", "ru": "вебхук снова включён"},
}
SUBJECT = {"en": "amocrm-mirror: new problems {began}, solved {ended}",
           "ru": "amocrm-mirror: новых проблем {began}, решено {ended}"}
CUT = {"en": "… and {count} more: `amocrm-mirror alerts`", "ru": "… и ещё {count}: `amocrm-mirror alerts`"}
TEST = ("amocrm-mirror: this is a test. Alerts arrive here.",
        "amocrm-mirror: это проверка. Оповещения приходят сюда.")


@dataclass(frozen=True)
class Event:
    """The begin or the end of a problem, and its text."""

    account: str
    kind: str
    has_begun: bool
    text: str

    @property
    def line(self) -> str:
        return f"{'✗' if self.has_begun else '✓'} {self.account}: {self.text}"


@dataclass(frozen=True)
class Message:
    """What one channel is sent at once."""

    subject: str
    text: str
    events: tuple[Event, ...] = ()


def began(problem: Problem, language: str, fresh_hours: float) -> Event:
    text = BEGAN[problem.kind][language].format(account=problem.account, detail=problem.detail,
                                                count=problem.count, hours=fresh_hours)
    return Event(problem.account, problem.kind, True, text)


def ended(account: str, kind: str, language: str) -> Event:
    return Event(account, kind, False, ENDED[kind][language])


def compose(events: Sequence[Event], language: str) -> Message:
    """Returns the message of these events: problems first, cut where Telegram would refuse it."""
    ordered = sorted(events, key=lambda each: (not each.has_begun, each.account, each.kind))
    begun = sum(each.has_begun for each in ordered)
    subject = SUBJECT[language].format(began=begun, ended=len(ordered) - begun)
    lines, length = [subject, ""], len(subject)
    for place, event in enumerate(ordered):
        length += len(event.line) + 2
        if length > MAX_CHARACTERS and place:
            lines.append(CUT[language].format(count=len(ordered) - place))
            break
        lines.append(event.line)
    return Message(subject, "\n".join(lines), tuple(ordered))


def trial_message() -> Message:
    return Message(TEST[0], "\n".join(TEST))
