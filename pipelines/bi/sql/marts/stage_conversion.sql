-- Conversion from stage to stage: into which stage deals went from each open stage, by the day on which they had come into it, by responsible user and source
SELECT
  m.entered_date, -- Day on which the deals came into the stage, in the account's time zone
  date_trunc('month', m.entered_date::timestamp)::date AS entered_month, -- Month of that day
  p.name AS pipeline, -- Pipeline
  s.name AS status, -- Stage
  s.label AS status_label, -- Stage behind its number in the pipeline, so that labels sort as the stages do: 02. Offer
  np.name AS next_pipeline, -- Pipeline that they went to; null: they are still there
  n.name AS next_status, -- Stage that they went to; null: they are still there, or that stage has no name
  n.label AS next_status_label, -- That stage behind its number in its pipeline
  CASE WHEN m.next_status_id IS NULL THEN 'still there' WHEN m.next_status_id = 142 THEN 'won' WHEN m.next_status_id = 143 THEN 'lost' WHEN m.next_pipeline_id <> m.pipeline_id THEN 'another pipeline' WHEN n.sort > s.sort THEN 'forward' WHEN n.sort <= s.sort THEN 'back' ELSE 'unknown' END AS direction, -- forward, back, won, lost, another pipeline, still there; unknown: one of the stages is not known any more
  m.deals, -- How often a deal went that way; one that came into the stage twice counts twice. Conversion: sum of the way / sum of all ways from the stage
  round(m.hours::numeric, 2) AS hours, -- How long they were in the stage, together, in hours; null: they are still there
  coalesce(u.name, 'user ' || nullif(m.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user of the deals now
  o.name AS source, -- Source of the deals
  s.sort AS status_sort, -- Order of the stage
  m.pipeline_id, -- Pipeline's id
  m.status_id, -- Stage's id
  m.next_pipeline_id, -- Id of the pipeline that they went to
  m.next_status_id, -- Id of the stage that they went to; 142 won, 143 lost
  m.responsible_user_id, -- Responsible user's id
  m.source_id -- Source's id
FROM {stored_stage_moves} m
LEFT JOIN (
  SELECT pipeline_id, id, name, sort, type, lpad(row_number() OVER (PARTITION BY pipeline_id ORDER BY sort, id)::text, 2, '0') || '. ' || name AS label
  FROM {schema}.statuses GROUP BY pipeline_id, id) s ON s.pipeline_id = m.pipeline_id AND s.id = m.status_id
LEFT JOIN (
  SELECT pipeline_id, id, name, sort, type, lpad(row_number() OVER (PARTITION BY pipeline_id ORDER BY sort, id)::text, 2, '0') || '. ' || name AS label
  FROM {schema}.statuses GROUP BY pipeline_id, id) n ON n.pipeline_id = m.next_pipeline_id AND n.id = m.next_status_id
LEFT JOIN {schema}.pipelines np ON np.id = m.next_pipeline_id
LEFT JOIN {schema}.pipelines p ON p.id = m.pipeline_id
LEFT JOIN {schema}.sources o ON o.id = m.source_id
LEFT JOIN {schema}.users u ON u.id = m.responsible_user_id
