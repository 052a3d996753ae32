-- Counts of wrong rows by table and kind of record; all are 0 where history is consistent:
--   astray     open intervals whose value is not the living record's, although it was read after they began
--   missing    living records without an open interval
--   broken     intervals that do not end where the next one begins
--   repeated   observations that repeat the value before them, so that a change is counted twice. (An event
--              may repeat an observation: the value changed in between, and no event reported it)
WITH held AS (
  SELECT 'lead_status_history' AS name, 'leads' AS entity_type, lead_id AS entity_id, 0::int8 AS field_id,
         entered_at, left_at, source,
         to_jsonb(ARRAY[pipeline_id, status_id]) AS value FROM {schema}.lead_status_history
  UNION ALL
  SELECT 'responsible_history', entity_type, entity_id, 0, entered_at, left_at, source,
         to_jsonb(ARRAY[responsible_user_id])
  FROM {schema}.responsible_history
  UNION ALL
  SELECT 'custom_field_history', entity_type, entity_id, field_id, changed_at, NULL, source, value_after
  FROM {schema}.custom_field_history
), ordered AS (
  SELECT *, lead(entered_at) OVER record AS next_at, lag(value) OVER record AS former
  FROM held WINDOW record AS (PARTITION BY name, entity_type, entity_id, field_id ORDER BY entered_at)
), owned AS (
  SELECT 'leads' AS entity_type, id, responsible_user_id, created_at, updated_at, _synced_at
  FROM {schema}.leads WHERE _deleted_at IS NULL
  UNION ALL SELECT 'contacts', id, responsible_user_id, created_at, updated_at, _synced_at
  FROM {schema}.contacts WHERE _deleted_at IS NULL
  UNION ALL SELECT 'companies', id, responsible_user_id, created_at, updated_at, _synced_at
  FROM {schema}.companies WHERE _deleted_at IS NULL
  UNION ALL SELECT 'customers', id, responsible_user_id, created_at, updated_at, _synced_at
  FROM {schema}.customers WHERE _deleted_at IS NULL
  UNION ALL SELECT 'tasks', id, responsible_user_id, created_at, updated_at, _synced_at
  FROM {schema}.tasks WHERE _deleted_at IS NULL
), living AS (
  SELECT 'lead_status_history' AS name, 'leads' AS entity_type, id AS entity_id, true AS is_open,
         to_jsonb(ARRAY[pipeline_id, status_id]) AS value, updated_at, _synced_at
  FROM {schema}.leads WHERE _deleted_at IS NULL AND num_nulls(pipeline_id, status_id) = 0
  UNION ALL
  SELECT 'responsible_history', entity_type, id, true, to_jsonb(ARRAY[responsible_user_id]),
         updated_at, _synced_at
  FROM owned WHERE created_at IS NOT NULL
)
SELECT coalesce(o.name, l.name) AS name, coalesce(o.entity_type, l.entity_type) AS entity_type,
       count(o.entity_id) AS rows,
       count(*) FILTER (WHERE o.source = 'observed') AS observed,
       count(*) FILTER (WHERE o.value <> l.value
                        AND (o.source = 'observed' OR o.entered_at < l._synced_at - {slack}
                             OR o.entered_at <= l.updated_at
                             AND l.updated_at <= l._synced_at + {slack})) AS astray,
       count(*) FILTER (WHERE o.entity_id IS NULL) AS missing,
       count(*) FILTER (WHERE o.name <> 'custom_field_history'
                        AND (o.left_at IS DISTINCT FROM o.next_at OR o.left_at <= o.entered_at)) AS broken,
       count(*) FILTER (WHERE o.value = o.former AND o.source = 'observed') AS repeated
FROM ordered o
FULL JOIN living l
  ON (l.name, l.entity_type, l.entity_id, l.is_open) = (o.name, o.entity_type, o.entity_id, o.left_at IS NULL)
GROUP BY 1, 2 ORDER BY 1 DESC, 2 DESC
