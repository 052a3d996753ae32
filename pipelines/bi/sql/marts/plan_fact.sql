-- Plan and fact (План-факт): the plans of the table sales_plans, and the deals that were won in their months
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts),
won AS (
  SELECT date_trunc('month', l.closed_at AT TIME ZONE z.name)::date AS month, l.responsible_user_id, l.pipeline_id, count(*) AS deals, coalesce(sum(l.price), 0) AS value
  FROM {schema}.leads l CROSS JOIN zone z WHERE l._deleted_at IS NULL AND l.status_id = 142 GROUP BY 1, 2, 3
), plans AS (
  SELECT k.*, (k.month + interval '1 month')::date AS next_day, (now() AT TIME ZONE z.name)::date AS today
  FROM {schema}.sales_plans k CROSS JOIN zone z
), counted AS (
  SELECT k.month, k.responsible_user_id, k.pipeline_id, k.value AS plan_value, k.deals AS plan_deals, k.next_day, k.today,
         coalesce(sum(w.value), 0) AS fact_value, coalesce(sum(w.deals), 0)::bigint AS fact_deals
  FROM plans k LEFT JOIN won w ON w.month = k.month AND (k.responsible_user_id = 0 OR w.responsible_user_id = k.responsible_user_id) AND (k.pipeline_id = 0 OR w.pipeline_id = k.pipeline_id)
  GROUP BY 1, 2, 3, 4, 5, 6, 7
)
SELECT
  c.month AS closed_month, -- Month of the plan: its first day, in the account's time zone
  CASE WHEN c.responsible_user_id = 0 THEN '(all)' ELSE coalesce(u.name, 'user ' || c.responsible_user_id) END AS responsible_user, -- User whose plan it is; (all): of all users together
  CASE WHEN c.pipeline_id = 0 THEN '(all)' ELSE coalesce(p.name, 'pipeline ' || c.pipeline_id) END AS pipeline, -- Pipeline of the plan; (all): of all pipelines together
  c.plan_value, -- Value that is planned
  c.fact_value, -- Value of the deals won
  round(c.fact_value / nullif(c.plan_value, 0), 4) AS value_share, -- fact_value / plan_value
  c.plan_deals, -- Number of deals that is planned
  c.fact_deals, -- Deals won
  round(c.fact_deals::numeric / nullif(c.plan_deals, 0), 4) AS deals_share, -- fact_deals / plan_deals
  round(greatest(0, least(c.today + 1, c.next_day) - c.month)::numeric / (c.next_day - c.month), 4) AS month_share, -- How much of the month is over, today included: what the shares compare with
  c.today BETWEEN c.month AND c.next_day - 1 AS is_current, -- It is the plan of this month
  c.responsible_user_id, -- User's id; 0: all
  c.pipeline_id -- Pipeline's id; 0: all
FROM counted c
LEFT JOIN {schema}.pipelines p ON p.id = c.pipeline_id
LEFT JOIN {schema}.users u ON u.id = c.responsible_user_id
