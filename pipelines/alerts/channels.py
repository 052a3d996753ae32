"""The ways to a person: e-mail (SMTP), Slack, Telegram, any webhook. Each is one setting, which is a secret:
no message repeats a part of it."""

from __future__ import annotations

import re
import smtplib
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid, parseaddr
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import requests

from pipelines.alerts.wording import Message
from pipelines.amocrm.hosts import is_loopback
from pipelines.config.settings import Settings, SettingsError

TIMEOUT_SECONDS = 10.0
"""Seconds for a connection, and for each answer."""
TELEGRAM_API = "https://api.telegram.org"
TELEGRAM = re.compile(r"(?P<token>\d+:[\w-]{20,})@(?P<chat>-?\d+|@\w+)")
SMTP_FORM = "smtp://user:password@mail.example.com:587?to=you@example.com (smtps:// for TLS from the start)"


class NotDeliveredError(Exception):
    """The channel did not take the message. The text says why, without a part of the setting."""


@dataclass(frozen=True)
class Channel:
    """One way to a person. `send` raises NotDeliveredError."""

    name: str
    send: Callable[[Message], None]


def open_channels(settings: Settings) -> list[Channel]:
    """Returns the configured channels. Raises SettingsError for one that cannot be used."""
    return list(_configured(settings))


def _configured(settings: Settings) -> Iterator[Channel]:
    if settings.mirror_alert_email:
        yield Channel("e-mail", _email(settings.mirror_alert_email.get_secret_value()))
    if settings.mirror_alert_slack:
        url = _web_address("MIRROR_ALERT_SLACK", settings.mirror_alert_slack.get_secret_value())
        yield Channel("Slack", lambda message: _post("Slack", url, {"text": message.text}))
    if settings.mirror_alert_telegram:
        yield Channel("Telegram", _telegram(settings.mirror_alert_telegram.get_secret_value()))
    if settings.mirror_alert_webhook:
        hook = _web_address("MIRROR_ALERT_WEBHOOK", settings.mirror_alert_webhook.get_secret_value(),
                            needs_tls=False)
        yield Channel("the webhook", lambda message: _post("the webhook", hook, webhook_body(message)))


# Over HTTP


def webhook_body(message: Message) -> dict[str, Any]:
    """The JSON that any webhook gets."""
    return {"subject": message.subject, "text": message.text, "events": [
        {"account": each.account, "problem": each.kind, "state": "began" if each.has_begun else "ended",
         "text": each.text} for each in message.events]}


def _web_address(setting: str, text: str, needs_tls: bool = True) -> str:
    parts = _parsed(text)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"{setting} is not the address of a web server: write https://…, as the service "
                            "shows it.")
    if needs_tls and parts.scheme == "http" and not is_loopback(parts.hostname):
        raise SettingsError(f"{setting} must use https: the address is a secret, which http sends readable.")
    return text.strip()


def _telegram(text: str) -> Callable[[Message], None]:
    found = TELEGRAM.fullmatch(text.strip())
    if found is None:
        raise SettingsError("MIRROR_ALERT_TELEGRAM is not a bot's token, @ and a chat: write "
                            "123456:token-of-the-bot@-1001234567890, or …@@name_of_a_channel.")
    url = f"{TELEGRAM_API}/bot{found['token']}/sendMessage"
    return lambda message: _post("Telegram", url, {"chat_id": found["chat"], "text": message.text,
                                                   "disable_web_page_preview": True})


def _post(name: str, url: str, body: dict[str, Any]) -> None:
    """Sends JSON. Raises NotDeliveredError. Errors of requests quote the address: they are not repeated."""
    try:
        answer = requests.post(url, json=body, timeout=TIMEOUT_SECONDS, allow_redirects=False)
    except requests.Timeout:
        raise NotDeliveredError(f"{name} did not answer within {TIMEOUT_SECONDS:g} s") from None
    except requests.exceptions.SSLError:
        raise NotDeliveredError(f"{name} shows a certificate that is not valid") from None
    except (requests.RequestException, ValueError):
        raise NotDeliveredError(f"{name} cannot be reached: look at the address, and whether this machine "
                                "may go there (proxy, firewall)") from None
    if not 200 <= answer.status_code < 300:
        raise NotDeliveredError(f"{name} did not take the message: status {answer.status_code}"
                                f"{_telegram_reason(answer) if name == 'Telegram' else ''}")


def _telegram_reason(answer: requests.Response) -> str:
    try:
        return f" ({answer.json()['description']})"
    except (ValueError, KeyError, TypeError):
        return ""


# Over SMTP


@dataclass(frozen=True)
class MailServer:
    """What MIRROR_ALERT_EMAIL says."""

    host: str
    port: int
    has_tls: bool
    user: str
    password: str
    sender: str
    recipients: tuple[str, ...]


def parse_mail_server(text: str) -> MailServer:
    """Raises SettingsError."""
    parts = _parsed(text)
    if parts is None or parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise SettingsError(f"MIRROR_ALERT_EMAIL is not the address of a mail server: write {SMTP_FORM}.")
    query = parse_qs(parts.query)
    recipients = tuple(each.strip() for given in query.get("to", []) for each in given.split(","))
    user = unquote(parts.username or "")
    sender = (query.get("from") or [user if "@" in user else ""])[0] or (recipients or ("",))[0]
    if not recipients or not all("@" in parseaddr(each)[1] for each in (*recipients, sender)):
        raise SettingsError("MIRROR_ALERT_EMAIL does not say to whom: end it with ?to=you@example.com, "
                            "several separated by commas; &from=… if it is not the user's own address.")
    has_tls = parts.scheme == "smtps"
    return MailServer(parts.hostname, parts.port or (465 if has_tls else 587), has_tls, user,
                      unquote(parts.password or ""), sender, recipients)


def _email(text: str) -> Callable[[Message], None]:
    server = parse_mail_server(text)
    return lambda message: _mail(server, message)


def _mail(server: MailServer, message: Message) -> None:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = message.subject, server.sender, ", ".join(server.recipients)
    mail["Date"], mail["Message-ID"] = formatdate(), make_msgid(domain="amocrm-mirror")
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.text)
    try:
        with _connected(server) as connection:
            refused = connection.send_message(mail)
    except smtplib.SMTPAuthenticationError:
        raise NotDeliveredError("the mail server refuses the user or the password") from None
    except smtplib.SMTPResponseException as reason:
        raise NotDeliveredError(
            f"the mail server did not take the message: status {reason.smtp_code}") from None
    except smtplib.SMTPRecipientsRefused:
        raise NotDeliveredError("the mail server takes no mail for these recipients") from None
    except ssl.SSLError:
        raise NotDeliveredError("the mail server shows a certificate that is not valid") from None
    except (smtplib.SMTPException, OSError):
        raise NotDeliveredError("the mail server cannot be reached: look at its host and port, and whether "
                                "this machine may go there (firewall)") from None
    if refused:
        raise NotDeliveredError(f"the mail server takes no mail for {len(refused)} of the recipients")


def _connected(server: MailServer) -> smtplib.SMTP:
    """Returns a connection that is encrypted where the server can, and logged in. A password is not sent
    readable over a network."""
    context = ssl.create_default_context()
    if server.has_tls:
        connection: smtplib.SMTP = smtplib.SMTP_SSL(server.host, server.port, timeout=TIMEOUT_SECONDS,
                                                    context=context)
    else:
        connection = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_SECONDS)
        connection.ehlo_or_helo_if_needed()
        if connection.has_extn("starttls"):
            connection.starttls(context=context)
        elif server.password and not is_loopback(server.host):
            connection.close()
            raise NotDeliveredError("the mail server offers no encryption (STARTTLS), and the password would "
                                    "travel readable: use smtps://")
    if server.user:
        connection.login(server.user, server.password)
    return connection


def _parsed(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text.strip())
        _ = parts.port
    except ValueError:
        return None
    return parts
