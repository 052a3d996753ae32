-- How fresh the mirror is: for each list, the moment up to which it is complete, its last run, and what the last verification found
WITH held AS (
  SELECT EXISTS (
    SELECT FROM pg_locks k, (SELECT hashtextextended('amocrm-mirror sync ' || {account}, 0) AS key) a
    WHERE k.locktype = 'advisory' AND k.granted AND k.objsubid = 1 AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND k.classid::bigint = (a.key >> 32) & 4294967295 AND k.objid::bigint = a.key & 4294967295) AS is_syncing
)
SELECT
  w.list, -- List, as its table is called
  done.watermark AS complete_up_to, -- The list holds what amoCRM showed at this moment, deletions that leave no trace excepted; null: it was never read completely
  (done.watermark AT TIME ZONE (SELECT timezone FROM {schema}.accounts LIMIT 1))::date AS complete_up_to_date, -- Day of it, in the account's time zone
  round((extract(epoch FROM now() - done.watermark) / 3600)::numeric, 2) AS hours_behind, -- Hours since then
  CASE WHEN last.id IS NULL THEN 'never' WHEN last.state = 'running' AND NOT held.is_syncing THEN 'interrupted' ELSE last.state END AS state, -- State of the last run: complete, incomplete, skipped (the account or the token has no such list), failed, running, interrupted; never: it was not read yet
  last.reason, -- Why it was skipped, is incomplete or failed
  last.started_at, -- When the last run of the list began
  last.finished_at, -- When it ended
  v.state AS verification, -- What the last verification found: equal, different, repaired, incomplete, skipped or failed; null: it was never verified
  v.ended_at AS verified_at, -- When it ended
  v.compared AS verified_records, -- Records compared
  v.missing + v.extra + v.stale AS differences, -- Records that were missing here, too many here, or different
  coalesce(done.found, false) AS is_there, -- The list was read completely at least once; false, and not skipped: it is still to come, and the views that show it lack records
  w.views, -- Views of this schema that show records of the list; `catalogs` stands for the views of all lists
  m.as_of AS marts_as_of, -- Marts whose steps are stored (in accounts of 100,000 deals and more) show the list as it was here at this moment; null: all marts read the list itself
  m.fault AS marts_fault -- Why these could not be refreshed; they show what they showed before
FROM unnest({lists}, {list_views}) WITH ORDINALITY w (list, views, place) CROSS JOIN held
LEFT JOIN LATERAL (
  SELECT * FROM mirror.sync_runs r WHERE r.account = {account} AND r.entity = w.list ORDER BY r.started_at DESC, r.id DESC LIMIT 1) last ON true
LEFT JOIN LATERAL (
  SELECT r.watermark, true AS found FROM mirror.sync_runs r WHERE r.account = {account} AND r.entity = w.list AND r.state = 'complete' ORDER BY r.started_at DESC, r.id DESC LIMIT 1) done ON true
LEFT JOIN LATERAL (
  SELECT * FROM mirror.verifications x WHERE x.account = {account} AND x.entity = w.list ORDER BY x.began_at DESC, x.id DESC LIMIT 1) v ON true
LEFT JOIN LATERAL (
  SELECT min(b.as_of) AS as_of, string_agg(b.fault, '; ' ORDER BY b.name) AS fault FROM {schema}.bi_stored b WHERE w.list = ANY (b.lists)) m ON true
ORDER BY w.place
