-- Deals of today, one row each, with the account's own fields as columns
SELECT
  l.id, -- Lead id
  l.name, -- Name of the deal
  l.price, -- Value of the deal
  CASE l.status_id WHEN 142 THEN 'won' WHEN 143 THEN 'lost' ELSE 'open' END AS outcome, -- open, won (stage 142) or lost (stage 143)
  p.name AS pipeline, -- Pipeline
  s.name AS status, -- Stage
  coalesce(u.name, 'user ' || nullif(l.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user
  g.name AS user_group, -- Department of the responsible user
  r.name AS loss_reason, -- Why it was lost
  o.name AS source, -- Where it came from
  ARRAY(SELECT (SELECT t.name FROM {schema}.tags t WHERE t.id = x.tag_id AND t.entity_type = 'leads') FROM {schema}.lead_tags x WHERE x.lead_id = l.id ORDER BY 1) AS tags, -- Tags
  mc.name AS main_contact, -- Name of the main contact
  co.name AS company, -- Name of the company
  (l.created_at AT TIME ZONE (SELECT timezone FROM {schema}.accounts LIMIT 1))::date AS created_date, -- Day of its creation, in the account's time zone
  (l.closed_at AT TIME ZONE (SELECT timezone FROM {schema}.accounts LIMIT 1))::date AS closed_date, -- Day on which it was won or lost, in the account's time zone
  l.created_at, -- When it was created
  l.updated_at, -- When it was changed last; API clients can write it, so it may lie
  l.closed_at, -- When it was won or lost; null while it is open
  l.closest_task_at, -- When its next task is due
  coalesce(cu.name, 'user ' || nullif(l.created_by, 0), '(none)') AS created_by_user, -- User who created it; (none): robot or API
  coalesce(uu.name, 'user ' || nullif(l.updated_by, 0), '(none)') AS updated_by_user, -- User who changed it last; (none): robot or API
  l.score, -- Score
  l.labor_cost, -- Working time spent, in seconds
  l.is_price_modified_by_robot, -- The value was last changed by a robot
  l.pipeline_id, -- Pipeline id
  l.status_id, -- Stage id; 142 won, 143 lost, in every pipeline
  s.sort AS status_sort, -- Order of the stage in its pipeline
  l.responsible_user_id, -- Responsible user's id
  l.group_id, -- Department's id
  l.loss_reason_id, -- Loss reason's id
  l.source_id, -- Source's id
  mc.id AS main_contact_id, -- Main contact's id
  co.id AS company_id, -- Company's id
  l.created_by, -- Id of the user who created it; 0: robot or API
  l.updated_by, -- Id of the user who changed it last; 0: robot or API
  {url} || '/leads/detail/' || l.id AS url, -- Address of the card
  s.label AS status_label, -- Stage behind its number in the pipeline, so that labels sort as the stages do: 02. Offer
  s.type IS NOT DISTINCT FROM 1 AS is_incoming, -- An incoming lead that waits to be accepted (Неразобранное); reports of deals leave these out
  (l.closest_task_at AT TIME ZONE (SELECT timezone FROM {schema}.accounts LIMIT 1))::date AS closest_task_date, -- Day on which its next task is due, in the account's time zone
  CASE WHEN l.status_id = 142 THEN extract(epoch FROM l.closed_at - l.created_at) / 86400 END AS cycle_days -- Days from creation to won; null: it is not won
FROM {schema}.leads l
LEFT JOIN {schema}.pipelines p ON p.id = l.pipeline_id
LEFT JOIN (
  SELECT pipeline_id, id, name, sort, type, lpad(row_number() OVER (PARTITION BY pipeline_id ORDER BY sort, id)::text, 2, '0') || '. ' || name AS label
  FROM {schema}.statuses GROUP BY pipeline_id, id) s ON s.pipeline_id = l.pipeline_id AND s.id = l.status_id
LEFT JOIN {schema}.users u ON u.id = l.responsible_user_id
LEFT JOIN {schema}.user_groups g ON g.id = l.group_id
LEFT JOIN {schema}.loss_reasons r ON r.id = l.loss_reason_id
LEFT JOIN {schema}.sources o ON o.id = l.source_id
LEFT JOIN {schema}.users cu ON cu.id = l.created_by
LEFT JOIN {schema}.users uu ON uu.id = l.updated_by
LEFT JOIN LATERAL (
  SELECT (array_agg(c.id ORDER BY c.id))[1] AS id, (array_agg(c.name ORDER BY c.id))[1] AS name
  FROM {schema}.lead_contacts x JOIN {schema}.contacts c ON c.id = x.contact_id WHERE x.lead_id = l.id AND x.is_main AND c._deleted_at IS NULL) mc ON true
LEFT JOIN LATERAL (
  SELECT (array_agg(c.id ORDER BY c.id))[1] AS id, (array_agg(c.name ORDER BY c.id))[1] AS name
  FROM {schema}.lead_companies x JOIN {schema}.companies c ON c.id = x.company_id WHERE x.lead_id = l.id AND c._deleted_at IS NULL) co ON true
WHERE l._deleted_at IS NULL
