-- Repeat purchases and LTV (Покупатели): one row a customer, counted from the purchases that are there
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts),
bought AS (
  SELECT t.customer_id, t.price, t.completed_at, t.completed_at - lag(t.completed_at) OVER (PARTITION BY t.customer_id ORDER BY t.completed_at, t.id) AS pause
  FROM {schema}.transactions t WHERE t._deleted_at IS NULL AND t.is_deleted IS NOT TRUE
), counted AS (
  SELECT customer_id, count(*) AS purchases, coalesce(sum(price), 0) AS ltv, avg(price) AS average, min(completed_at) AS first_at,
         max(completed_at) AS last_at, avg(extract(epoch FROM pause)) / 86400 AS pause
  FROM bought GROUP BY 1
)
SELECT
  c.id AS customer_id, -- Customer
  c.name, -- Name of the customer
  s.name AS status, -- Stage
  coalesce(u.name, 'user ' || nullif(c.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user
  coalesce(b.purchases, 0) AS purchases, -- Purchases that are there
  coalesce(b.purchases, 0) > 1 AS is_repeat, -- Bought more than once
  coalesce(b.ltv, 0) AS ltv, -- Value of all of them
  round(b.average, 2) AS average_check, -- Average value of one
  (b.first_at AT TIME ZONE z.name)::date AS first_purchase_date, -- Day of the first one, in the account's time zone
  (b.last_at AT TIME ZONE z.name)::date AS last_purchase_date, -- Day of the last one
  date_trunc('month', b.first_at AT TIME ZONE z.name)::date AS cohort_month, -- Month of the first one
  round(b.pause::numeric, 1) AS average_days_between, -- Days from one purchase to the next, on average
  (now() AT TIME ZONE z.name)::date - (b.last_at AT TIME ZONE z.name)::date AS days_since_last, -- Days since the last one
  c.next_price, -- Expected value of the next one
  (c.next_date AT TIME ZONE z.name)::date AS next_purchase_date, -- Day on which it is expected
  c.ltv AS amocrm_ltv, -- LTV as amoCRM itself counts it
  c.purchases_count AS amocrm_purchases, -- Purchases as amoCRM itself counts them
  c.status_id, -- Stage's id
  c.responsible_user_id, -- Responsible user's id
  {url} || '/customers/detail/' || c.id AS url, -- Address of the customer's card
  (c.next_date AT TIME ZONE z.name)::date AS next_date, -- The same day as next_purchase_date: the name that it has in customers
  (c.created_at AT TIME ZONE z.name)::date AS created_date, -- Day of the customer's creation, in the account's time zone
  s.label AS status_label -- Stage behind its number, so that labels sort as the stages do
FROM {schema}.customers c CROSS JOIN zone z
LEFT JOIN counted b ON b.customer_id = c.id
LEFT JOIN (
  SELECT id, name, sort, lpad(row_number() OVER (ORDER BY sort, id)::text, 2, '0') || '. ' || name AS label FROM {schema}.customer_statuses GROUP BY id) s ON s.id = c.status_id
LEFT JOIN {schema}.users u ON u.id = c.responsible_user_id
WHERE c._deleted_at IS NULL
