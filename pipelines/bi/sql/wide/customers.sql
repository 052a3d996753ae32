-- Customers of today, one row each, with the account's own fields as columns
SELECT
  c.id, -- Customer id
  c.name, -- Name of the customer
  s.name AS status, -- Stage; accounts with segments have none
  ARRAY(SELECT t.name FROM {schema}.customer_segments x JOIN {schema}.segments t ON t.id = x.segment_id WHERE x.customer_id = c.id ORDER BY 1) AS segments, -- Segments
  c.ltv, -- Value of all purchases so far, as amoCRM counts it
  c.purchases_count, -- Number of purchases so far, as amoCRM counts it
  c.average_check, -- Average value of a purchase, as amoCRM counts it
  c.next_price, -- Expected value of the next purchase
  (c.next_date AT TIME ZONE (SELECT timezone FROM {schema}.accounts LIMIT 1))::date AS next_date, -- Day on which the next purchase is expected, in the account's time zone
  c.periodicity, -- Days between purchases
  coalesce(u.name, 'user ' || nullif(c.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user
  g.name AS user_group, -- Department of the responsible user
  ARRAY(SELECT (SELECT t.name FROM {schema}.tags t WHERE t.id = x.tag_id AND t.entity_type = 'customers') FROM {schema}.customer_tags x WHERE x.customer_id = c.id ORDER BY 1) AS tags, -- Tags
  mc.name AS main_contact, -- Name of the main contact
  co.name AS company, -- Name of the company
  (c.created_at AT TIME ZONE (SELECT timezone FROM {schema}.accounts LIMIT 1))::date AS created_date, -- Day of its creation, in the account's time zone
  c.created_at, -- When it was created
  c.updated_at, -- When it was changed last; API clients can write it, so it may lie
  c.closest_task_at, -- When the next task is due
  coalesce(cu.name, 'user ' || nullif(c.created_by, 0), '(none)') AS created_by_user, -- User who created it; (none): robot or API
  coalesce(uu.name, 'user ' || nullif(c.updated_by, 0), '(none)') AS updated_by_user, -- User who changed it last; (none): robot or API
  c.status_id, -- Stage's id
  c.responsible_user_id, -- Responsible user's id
  c.group_id, -- Department's id
  mc.id AS main_contact_id, -- Main contact's id
  co.id AS company_id, -- Company's id
  c.created_by, -- Id of the user who created it; 0: robot or API
  c.updated_by, -- Id of the user who changed it last; 0: robot or API
  {url} || '/customers/detail/' || c.id AS url, -- Address of the card
  s.label AS status_label -- Stage behind its number, so that labels sort as the stages do
FROM {schema}.customers c
LEFT JOIN (
  SELECT id, name, sort, lpad(row_number() OVER (ORDER BY sort, id)::text, 2, '0') || '. ' || name AS label FROM {schema}.customer_statuses GROUP BY id) s ON s.id = c.status_id
LEFT JOIN {schema}.users u ON u.id = c.responsible_user_id
LEFT JOIN {schema}.user_groups g ON g.id = c.group_id
LEFT JOIN {schema}.users cu ON cu.id = c.created_by
LEFT JOIN {schema}.users uu ON uu.id = c.updated_by
LEFT JOIN LATERAL (
  SELECT (array_agg(m.id ORDER BY m.id))[1] AS id, (array_agg(m.name ORDER BY m.id))[1] AS name
  FROM {schema}.customer_contacts x JOIN {schema}.contacts m ON m.id = x.contact_id WHERE x.customer_id = c.id AND x.is_main AND m._deleted_at IS NULL) mc ON true
LEFT JOIN LATERAL (
  SELECT (array_agg(m.id ORDER BY m.id))[1] AS id, (array_agg(m.name ORDER BY m.id))[1] AS name
  FROM {schema}.customer_companies x JOIN {schema}.companies m ON m.id = x.company_id WHERE x.customer_id = c.id AND m._deleted_at IS NULL) co ON true
WHERE c._deleted_at IS NULL
