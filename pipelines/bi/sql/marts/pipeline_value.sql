-- The pipeline as of any date: open deals and their value in each stage at the end of each day
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts),
standing AS (
  SELECT pipeline_id, status_id, day, sum(deals) OVER w AS deals, sum(price) OVER w AS price, lead(day) OVER w AS next_day
  FROM {stored_pipeline_steps} x WINDOW w AS (PARTITION BY pipeline_id, status_id ORDER BY day)
)
SELECT
  d.day::date AS day, -- Day: what stands here was so at its end, in the account's time zone; today: until now
  p.name AS pipeline, -- Pipeline
  s.name AS status, -- Stage, also one that was removed since
  t.deals::bigint AS deals, -- Open deals that were in it
  t.price AS value, -- Their value as it is today: amoCRM keeps no past values
  s.sort AS status_sort, -- Order of the stage
  t.pipeline_id, -- Pipeline's id
  t.status_id, -- Stage's id
  s.label AS status_label, -- Stage behind its number in the pipeline, so that labels sort as the stages do: 02. Offer
  d.day::date = (now() AT TIME ZONE z.name)::date AS is_today -- The day is today: what stands here is so now
FROM standing t CROSS JOIN zone z
CROSS JOIN LATERAL generate_series(t.day::timestamp, least(t.next_day - 1, (now() AT TIME ZONE z.name)::date)::timestamp, interval '1 day') d (day)
LEFT JOIN {schema}.pipelines p ON p.id = t.pipeline_id
LEFT JOIN (
  SELECT pipeline_id, id, name, sort, type, lpad(row_number() OVER (PARTITION BY pipeline_id ORDER BY sort, id)::text, 2, '0') || '. ' || name AS label
  FROM {schema}.statuses GROUP BY pipeline_id, id) s ON s.pipeline_id = t.pipeline_id AND s.id = t.status_id
WHERE t.deals > 0
