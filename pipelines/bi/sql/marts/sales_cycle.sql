-- Sales cycle and velocity, by pipeline and by the month in which deals were closed
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts),
closed AS (
  SELECT date_trunc('month', l.closed_at AT TIME ZONE z.name)::date AS closed_month, l.pipeline_id, l.status_id = 142 AS is_won, l.price,
         extract(epoch FROM l.closed_at - l.created_at) / 86400 AS days
  FROM {schema}.leads l CROSS JOIN zone z
  WHERE l._deleted_at IS NULL AND l.status_id IN (142, 143) AND l.closed_at IS NOT NULL
), counted AS (
  SELECT closed_month, pipeline_id, count(*) AS deals, count(*) FILTER (WHERE is_won) AS won, coalesce(sum(price) FILTER (WHERE is_won), 0) AS value,
         avg(price) FILTER (WHERE is_won) AS average, avg(days) FILTER (WHERE is_won) AS days,
         percentile_cont(0.5) WITHIN GROUP (ORDER BY days) FILTER (WHERE is_won) AS median
  FROM closed GROUP BY 1, 2
)
SELECT
  c.closed_month, -- Month in which the deals were won or lost, in the account's time zone
  p.name AS pipeline, -- Pipeline
  c.deals, -- Deals closed: won and lost
  c.won, -- Deals won
  c.deals - c.won AS lost, -- Deals lost
  round(c.won::numeric / c.deals, 4) AS win_rate, -- won / deals
  c.value AS won_value, -- Value of the deals won
  round(c.average, 2) AS average_value, -- Average value of a deal won
  round(c.days::numeric, 2) AS average_cycle_days, -- Days from creation to won, on average
  round(c.median::numeric, 2) AS median_cycle_days, -- Half of the deals won took fewer days
  round(c.deals * c.average * (c.won::numeric / c.deals) / nullif(c.days::numeric, 0), 2) AS velocity, -- Value a day: deals × average_value × win_rate / average_cycle_days
  c.pipeline_id -- Pipeline's id
FROM counted c
LEFT JOIN {schema}.pipelines p ON p.id = c.pipeline_id
