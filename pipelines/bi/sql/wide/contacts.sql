-- People of today, one row each, with the account's own fields as columns
SELECT
  c.id, -- Contact id
  c.name, -- Full name
  c.first_name, -- First name
  c.last_name, -- Last name
  co.name AS company, -- Company that the person works for
  coalesce(u.name, 'user ' || nullif(c.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user
  g.name AS user_group, -- Department of the responsible user
  ARRAY(SELECT (SELECT t.name FROM {schema}.tags t WHERE t.id = x.tag_id AND t.entity_type = 'contacts') FROM {schema}.contact_tags x WHERE x.contact_id = c.id ORDER BY 1) AS tags, -- Tags
  (c.created_at AT TIME ZONE (SELECT timezone FROM {schema}.accounts LIMIT 1))::date AS created_date, -- Day of its creation, in the account's time zone
  c.created_at, -- When it was created
  c.updated_at, -- When it was changed last; API clients can write it, so it may lie
  c.closest_task_at, -- When the next task is due
  coalesce(cu.name, 'user ' || nullif(c.created_by, 0), '(none)') AS created_by_user, -- User who created it; (none): robot or API
  coalesce(uu.name, 'user ' || nullif(c.updated_by, 0), '(none)') AS updated_by_user, -- User who changed it last; (none): robot or API
  c.is_unsorted, -- Belongs to an incoming lead that nobody has accepted yet
  c.responsible_user_id, -- Responsible user's id
  c.group_id, -- Department's id
  co.id AS company_id, -- Company's id
  c.created_by, -- Id of the user who created it; 0: robot or API
  c.updated_by, -- Id of the user who changed it last; 0: robot or API
  {url} || '/contacts/detail/' || c.id AS url -- Address of the card
FROM {schema}.contacts c
LEFT JOIN {schema}.users u ON u.id = c.responsible_user_id
LEFT JOIN {schema}.user_groups g ON g.id = c.group_id
LEFT JOIN {schema}.users cu ON cu.id = c.created_by
LEFT JOIN {schema}.users uu ON uu.id = c.updated_by
LEFT JOIN LATERAL (
  SELECT (array_agg(m.id ORDER BY m.id))[1] AS id, (array_agg(m.name ORDER BY m.id))[1] AS name
  FROM {schema}.contact_companies x JOIN {schema}.companies m ON m.id = x.company_id WHERE x.contact_id = c.id AND m._deleted_at IS NULL) co ON true
WHERE c._deleted_at IS NULL
