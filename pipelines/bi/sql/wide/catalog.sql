-- Elements of one list of today, one row each, with the list's own fields as columns
SELECT
  e.id, -- Element id
  e.name, -- Name of the element
  (e.created_at AT TIME ZONE (SELECT timezone FROM {schema}.accounts LIMIT 1))::date AS created_date, -- Day of its creation, in the account's time zone
  e.created_at, -- When it was created
  e.updated_at, -- When it was changed last
  coalesce(cu.name, 'user ' || nullif(e.created_by, 0), '(none)') AS created_by_user, -- User who created it; (none): robot or API
  coalesce(uu.name, 'user ' || nullif(e.updated_by, 0), '(none)') AS updated_by_user, -- User who changed it last; (none): robot or API
  e.invoice_link, -- Address of the invoice
  e.warning, -- Warning on an invoice
  e.created_by, -- Id of the user who created it; 0: robot or API
  e.updated_by, -- Id of the user who changed it last; 0: robot or API
  {url} || '/catalogs/' || e.catalog_id || '/detail/' || e.id AS url -- Address of the card
FROM {schema}.catalog_elements e
LEFT JOIN {schema}.users cu ON cu.id = e.created_by
LEFT JOIN {schema}.users uu ON uu.id = e.updated_by
WHERE e.catalog_id = {catalog} AND e._deleted_at IS NULL AND e.is_deleted IS NOT TRUE
