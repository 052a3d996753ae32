-- Sales cycle and velocity, by pipeline and by the day on which deals were closed, by responsible user, source and tags
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts),
closed AS (
  SELECT (l.closed_at AT TIME ZONE z.name)::date AS closed_date, l.pipeline_id, l.responsible_user_id, l.source_id, g.tag_ids,
         l.status_id = 142 AS is_won, l.price, extract(epoch FROM l.closed_at - l.created_at) / 86400 AS days
  FROM {schema}.leads l CROSS JOIN zone z
  LEFT JOIN (SELECT lead_id, array_agg(tag_id ORDER BY tag_id) AS tag_ids FROM {schema}.lead_tags GROUP BY lead_id) g ON g.lead_id = l.id
  WHERE l._deleted_at IS NULL AND l.status_id IN (142, 143) AND l.closed_at IS NOT NULL
), counted AS (
  SELECT closed_date, pipeline_id, responsible_user_id, source_id, tag_ids, count(*) AS deals, count(*) FILTER (WHERE is_won) AS won, coalesce(sum(price) FILTER (WHERE is_won), 0) AS value,
         avg(price) FILTER (WHERE is_won) AS average, avg(days) FILTER (WHERE is_won) AS days, sum(days) FILTER (WHERE is_won) AS all_days,
         percentile_cont(0.5) WITHIN GROUP (ORDER BY days) FILTER (WHERE is_won) AS median
  FROM closed GROUP BY 1, 2, 3, 4, 5
)
SELECT
  date_trunc('month', c.closed_date::timestamp)::date AS closed_month, -- Month in which the deals were won or lost, in the account's time zone
  p.name AS pipeline, -- Pipeline
  c.deals, -- Deals closed: won and lost
  c.won, -- Deals won
  c.deals - c.won AS lost, -- Deals lost
  round(c.won::numeric / c.deals, 4) AS win_rate, -- won / deals. Over several rows: sum(won) / sum(deals)
  c.value AS won_value, -- Value of the deals won
  round(c.average, 2) AS average_value, -- Average value of a deal won. Over several rows: sum(won_value) / sum(won)
  round(c.days::numeric, 2) AS average_cycle_days, -- Days from creation to won, on average. Over several rows: sum(cycle_days) / sum(won)
  round(c.median::numeric, 2) AS median_cycle_days, -- Half of the deals won took fewer days: of this row alone. The median of a period is counted from leads.cycle_days
  round(c.deals * c.average * (c.won::numeric / c.deals) / nullif(c.days::numeric, 0), 2) AS velocity, -- Value a day: deals × average_value × win_rate / average_cycle_days. Over several rows: sum(won_value) × sum(won) / sum(cycle_days)
  c.pipeline_id, -- Pipeline's id
  c.closed_date, -- Day on which the deals were won or lost, in the account's time zone
  coalesce(u.name, 'user ' || nullif(c.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user
  o.name AS source, -- Source of the deals
  ARRAY(SELECT t.name FROM {schema}.tags t WHERE t.entity_type = 'leads' AND t.id = ANY (c.tag_ids) ORDER BY 1) AS tags, -- Tags of the deals: one row counts deals of exactly these, so rows can be added up
  round(c.all_days::numeric, 4) AS cycle_days, -- Days from creation to won, of all deals won together
  c.responsible_user_id, -- Responsible user's id
  c.source_id -- Source's id
FROM counted c
LEFT JOIN {schema}.pipelines p ON p.id = c.pipeline_id
LEFT JOIN {schema}.sources o ON o.id = c.source_id
LEFT JOIN {schema}.users u ON u.id = c.responsible_user_id
