-- Cohorts of customers (Когорты): of the customers who first bought in a month, how many bought again, month by month, until now
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts),
bought AS (
  SELECT customer_id, date_trunc('month', completed_at AT TIME ZONE z.name)::date AS month, count(*) AS purchases, sum(price) AS value
  FROM (
    SELECT t.customer_id, t.completed_at, coalesce(t.price, 0) AS price
    FROM {schema}.transactions t JOIN {schema}.customers c ON c.id = t.customer_id AND c._deleted_at IS NULL
    WHERE t._deleted_at IS NULL AND t.is_deleted IS NOT TRUE AND t.completed_at IS NOT NULL) t CROSS JOIN zone z GROUP BY 1, 2
), placed AS (
  SELECT *, min(month) OVER (PARTITION BY customer_id) AS cohort_month FROM bought
), active AS (
  SELECT cohort_month, month, count(*) AS customers, sum(purchases) AS purchases, sum(value) AS value FROM placed GROUP BY 1, 2
), cohorts AS (
  SELECT cohort_month, customers FROM active WHERE month = cohort_month
)
SELECT
  k.cohort_month, -- Month of the first purchase, in the account's time zone
  g.month::date AS month, -- Month that is looked at: from that one to the present
  ((extract(year FROM g.month) - extract(year FROM k.cohort_month)) * 12 + extract(month FROM g.month) - extract(month FROM k.cohort_month))::integer AS months_since, -- How many months later; 0: the month of the first purchase
  k.customers, -- Customers of the cohort
  coalesce(a.customers, 0) AS active_customers, -- Of them, those who bought in this month
  round(coalesce(a.customers, 0)::numeric / k.customers, 4) AS retention, -- active_customers / customers. Over several cohorts: sum(active_customers) / sum(customers)
  coalesce(a.purchases, 0)::bigint AS purchases, -- Their purchases in this month
  coalesce(a.value, 0) AS value, -- Value of these
  sum(coalesce(a.value, 0)) OVER (PARTITION BY k.cohort_month ORDER BY g.month) AS value_so_far, -- Value of all purchases of the cohort until the end of this month
  g.month = date_trunc('month', now() AT TIME ZONE z.name) AS is_now -- The month is not over
FROM cohorts k CROSS JOIN zone z
CROSS JOIN LATERAL generate_series(k.cohort_month::timestamp, greatest(k.cohort_month::timestamp, date_trunc('month', now() AT TIME ZONE z.name)), interval '1 month') g (month)
LEFT JOIN active a ON a.cohort_month = k.cohort_month AND a.month = g.month::date
