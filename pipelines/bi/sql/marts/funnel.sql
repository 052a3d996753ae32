-- Sales funnel (Воронка продаж): how many deals reached each stage of each pipeline. One row for each deal and stage of its pipelines, to be added up by day, responsible user, source or tag
WITH stages AS (
  SELECT s.pipeline_id, s.id AS status_id, s.name, s.sort, s._deleted_at IS NULL AS is_live, s.type IS NOT DISTINCT FROM 1 AS is_incoming, g.place, lpad(g.number::text, 2, '0') || '. ' || s.name AS label
  FROM {schema}.statuses s JOIN {stored_stage_places} g ON g.pipeline_id = s.pipeline_id AND g.status_id = s.id
), counted AS (
  SELECT d.*, s.status_id, s.name, s.sort, s.label, s.is_live,
         coalesce(CASE s.status_id WHEN 143 THEN s.status_id = ANY (d.entered) ELSE d.farthest >= s.place END, false)::integer::bigint AS reached,
         coalesce(s.status_id = ANY (d.entered), false)::integer::bigint AS was_in, coalesce(s.status_id = ANY (d.reopened), false)::integer::bigint AS came_back
  FROM {stored_funnel_deals} d JOIN stages s ON s.pipeline_id = d.pipeline_id AND NOT s.is_incoming
)
SELECT
  date_trunc('month', c.created_date::timestamp)::date AS created_month, -- Month in which the deal was created, in the account's time zone
  p.name AS pipeline, -- Pipeline
  c.name AS status, -- Stage
  1::bigint AS deals, -- 1: the deal has ever been in the pipeline
  c.reached, -- 1: it reached the stage: was in it, or in a later one. Lost (143) is later than none
  c.was_in AS entered, -- 1: it was in the stage itself. Of won and lost: it is so now
  c.reached - c.was_in AS skipped, -- 1: it passed the stage by
  c.came_back AS reopened, -- 1: it had been won or lost and came back into this stage
  coalesce(c.status_id = c.status_now, false)::integer::bigint AS deals_now, -- 1: it is in the stage now
  c.reached::numeric AS conversion, -- The same as reached: its average is sum(reached) / sum(deals)
  c.sort AS status_sort, -- Order of the stage
  c.pipeline_id, -- Pipeline's id
  c.status_id, -- Stage's id; 142 won, 143 lost
  c.created_date, -- Day on which the deal was created, in the account's time zone
  coalesce(u.name, 'user ' || nullif(c.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user of the deal now
  o.name AS source, -- Source of the deal
  ARRAY(SELECT t.name FROM {schema}.lead_tags x JOIN {schema}.tags t ON t.entity_type = 'leads' AND t.id = x.tag_id WHERE x.lead_id = c.lead_id ORDER BY 1) AS tags, -- Tags of the deal
  c.label AS status_label, -- Stage behind its number in the pipeline, so that labels sort as the stages do: 02. Offer
  c.lead_id, -- Deal
  {url} || '/leads/detail/' || c.lead_id AS url, -- Address of the deal's card
  c.responsible_user_id, -- Responsible user's id
  c.source_id -- Source's id
FROM counted c
LEFT JOIN {schema}.pipelines p ON p.id = c.pipeline_id
LEFT JOIN {schema}.sources o ON o.id = c.source_id
LEFT JOIN {schema}.users u ON u.id = c.responsible_user_id
WHERE c.is_live OR (c.pipeline_id, c.status_id, date_trunc('month', c.created_date::timestamp)::date) IN (SELECT f.pipeline_id, f.status_id, f.created_month FROM {stored_former_stages} f)
