"""Advisory locks: their names, which older programs use too, and what holding one means."""

from __future__ import annotations

import psycopg

from pipelines.postgres import locks


def test_names_stay_as_older_programs_know_them() -> None:
    assert [lock.name for lock in (
        locks.sync_lock("acme"), locks.full_scan_lock("acme"), locks.continuous_sync_lock("acme"),
        locks.continuous_worker_lock("acme"), locks.table_lock("acme", "leads"), locks.views_lock("acme"),
        locks.ALL_ACCOUNTS_VIEWS_LOCK)] == [
            "amocrm-mirror sync acme", "amocrm-mirror whole lists acme", "amocrm-mirror turn acme",
            "amocrm-mirror drain acme", "amocrm-mirror acme.leads", "amocrm-mirror views acme",
            "amocrm-mirror views over all accounts"]
    assert locks.MIGRATION_LOCK_KEY == 0x616D6F63


def test_a_lock_excludes_other_sessions_until_it_is_released(database: str) -> None:
    lock = locks.AdvisoryLock("one")
    with psycopg.connect(database) as first, psycopg.connect(database) as second:
        with lock.hold(first):
            assert lock.is_held(second)
            with lock.try_hold(second) as was_free, lock.try_hold(second, shared=True) as was_shareable:
                assert not was_free and not was_shareable
            assert not lock.try_hold_until_commit(second)
        assert not lock.is_held(second)
        with lock.try_hold(first, shared=True) as one, lock.try_hold(second, shared=True) as other:
            assert one and other
        lock.hold_until_commit(first)
        assert lock.is_held(second)
        first.commit()
        assert not lock.is_held(second)
