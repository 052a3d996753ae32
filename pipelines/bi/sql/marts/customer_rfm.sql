-- RFM of customers (RFM-анализ): how recently, how often and for how much each customer who has bought did so, as scores from 1 to 5 and a segment
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts),
bought AS (
  SELECT t.customer_id, t.completed_at, coalesce(t.price, 0) AS price
  FROM {schema}.transactions t JOIN {schema}.customers c ON c.id = t.customer_id AND c._deleted_at IS NULL
  WHERE t._deleted_at IS NULL AND t.is_deleted IS NOT TRUE AND t.completed_at IS NOT NULL
), counted AS (
  SELECT customer_id, max(completed_at) AS last_at, count(*) AS purchases, sum(price) AS ltv FROM bought GROUP BY 1
), scored AS (
  SELECT *, least(5, 1 + floor(5 * percent_rank() OVER (ORDER BY last_at)))::integer AS r,
         least(5, 1 + floor(5 * percent_rank() OVER (ORDER BY purchases)))::integer AS f,
         least(5, 1 + floor(5 * percent_rank() OVER (ORDER BY ltv)))::integer AS m
  FROM counted
)
SELECT
  c.id AS customer_id, -- Customer
  c.name, -- Name of the customer
  coalesce(u.name, 'user ' || nullif(c.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user
  (k.last_at AT TIME ZONE z.name)::date AS last_purchase_date, -- Day of the last purchase, in the account's time zone
  (now() AT TIME ZONE z.name)::date - (k.last_at AT TIME ZONE z.name)::date AS days_since_last, -- Days since then
  k.purchases, -- Purchases that are there
  k.ltv, -- Value of all of them
  k.r AS recency_score, -- 5: bought later than four in five customers … 1: earlier than four in five
  k.f AS frequency_score, -- 5: bought more often than four in five … 1; those who bought equally often have one score
  k.m AS monetary_score, -- 5: bought for more than four in five … 1
  k.r::text || k.f || k.m AS rfm, -- The three scores in a row: 543
  CASE WHEN k.r >= 4 AND k.f >= 4 THEN 'champions' WHEN k.r >= 4 AND k.f <= 2 THEN 'new' WHEN k.r >= 3 THEN 'loyal' WHEN k.f >= 3 THEN 'at risk' ELSE 'lost' END AS segment, -- champions (recency 4–5, frequency 4–5), new (recency 4–5, frequency 1–2), loyal (the others of recency 3–5), at risk (recency 1–2, frequency 3–5), lost (recency 1–2, frequency 1–2)
  {url} || '/customers/detail/' || c.id AS url, -- Address of the customer's card
  c.responsible_user_id -- Responsible user's id
FROM scored k JOIN {schema}.customers c ON c.id = k.customer_id CROSS JOIN zone z
LEFT JOIN {schema}.users u ON u.id = c.responsible_user_id
