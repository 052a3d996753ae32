"""What a server says while it stops or starts, and when it has no connection left, in the languages of its
users: the client library passes on no code."""

from __future__ import annotations

import psycopg
import pytest

from pipelines.postgres.errors import NO_CONNECTION_LEFT_MESSAGE, SERVER_DOWN_MESSAGE, describe_postgres_error


@pytest.mark.parametrize("message", [
    "FATAL:  the database system is in recovery mode", "FATAL:  the database system is starting up",
    "FATAL:  the database system is shutting down",
    "FATAL:  the database system is not yet accepting connections",
    "ВАЖНО:  система баз данных в режиме восстановления", "ВАЖНО:  система баз данных запускается",
    "ВАЖНО:  система баз данных останавливается", "ВАЖНО:  система БД ещё не принимает подключения",
    "сервер неожиданно закрыл соединение\n\tСкорее всего сервер прекратил работу из-за сбоя"])
def test_a_server_that_goes_down_is_named(message: str) -> None:
    assert describe_postgres_error(psycopg.OperationalError(message)).endswith(SERVER_DOWN_MESSAGE)


@pytest.mark.parametrize("message", [
    "FATAL:  sorry, too many clients already", 'FATAL:  too many connections for role "r"',
    "ВАЖНО:  извините, уже слишком много клиентов", 'ВАЖНО:  слишком много подключений для роли "r"',
    'ВАЖНО:  слишком много подключений к БД "d"',
    "ВАЖНО:  оставшиеся слоты подключений зарезервированы для подключений суперпользователя"])
def test_a_server_without_a_connection_left_is_named(message: str) -> None:
    assert describe_postgres_error(psycopg.OperationalError(message)).endswith(NO_CONNECTION_LEFT_MESSAGE)
