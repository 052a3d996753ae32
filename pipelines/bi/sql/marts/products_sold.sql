-- Products sold (Товары): elements of lists on deals won and on purchases; quantity × price
WITH zone AS (SELECT max(timezone) AS name FROM {schema}.accounts),
prices AS (
  SELECT v.catalog_element_id, v.field_id, v.value_number AS price, f.code = 'PRICE' AS is_main FROM {schema}.catalog_element_custom_field_values v
  JOIN {schema}.custom_fields f ON f.entity_type = 'catalogs' AND f.id = v.field_id AND (f.type = 'price' OR f.code = 'PRICE') WHERE v.position = 0
), main AS (
  SELECT catalog_element_id, min(price) AS price FROM prices WHERE is_main GROUP BY 1
), sold AS (
  SELECT 'leads' AS sold_as, x.lead_id AS entity_id, l.closed_at AS at, l.responsible_user_id, x.catalog_element_id, x.quantity, x.price_id, '/leads/detail/' || l.id AS card, l.pipeline_id, l.source_id
  FROM {schema}.lead_catalog_elements x JOIN {schema}.leads l ON l.id = x.lead_id AND l._deleted_at IS NULL AND l.status_id = 142
  UNION ALL
  SELECT 'transactions', x.transaction_id, t.completed_at, c.responsible_user_id, x.catalog_element_id, x.quantity, NULL, '/customers/detail/' || t.customer_id, NULL, NULL
  FROM {schema}.transaction_catalog_elements x JOIN {schema}.transactions t ON t.id = x.transaction_id AND t._deleted_at IS NULL AND t.is_deleted IS NOT TRUE
  LEFT JOIN {schema}.customers c ON c.id = t.customer_id
)
SELECT
  (s.at AT TIME ZONE z.name)::date AS sold_date, -- Day on which the deal was won or the purchase made, in the account's time zone
  s.sold_as, -- leads: on a deal won; transactions: on a purchase
  s.entity_id, -- That deal or purchase
  c.name AS catalog, -- List
  e.name AS product, -- Element
  coalesce(s.quantity, 1) AS quantity, -- How many; 1 where nobody said
  coalesce(chosen.price, main.price) AS price, -- What one costs today, by the price field that was chosen, else by the field with the code PRICE; amoCRM keeps no past prices
  coalesce(s.quantity, 1) * coalesce(chosen.price, main.price) AS amount, -- quantity × price; null: no price is known
  coalesce(u.name, 'user ' || nullif(s.responsible_user_id, 0), '(none)') AS responsible_user, -- Responsible user of the deal, or of the customer
  s.catalog_element_id, -- Element's id
  e.catalog_id, -- List's id
  s.responsible_user_id, -- Responsible user's id
  {url} || s.card AS url, -- Address of the card of the deal, or of the customer who bought
  p.name AS pipeline, -- Pipeline of the deal; null: a purchase
  o.name AS source, -- Source of the deal; null: it has none, or it is a purchase
  s.pipeline_id, -- Pipeline's id
  s.source_id -- Source's id
FROM sold s CROSS JOIN zone z
LEFT JOIN {schema}.catalog_elements e ON e.id = s.catalog_element_id
LEFT JOIN {schema}.catalogs c ON c.id = e.catalog_id
LEFT JOIN prices chosen ON chosen.catalog_element_id = s.catalog_element_id AND chosen.field_id = s.price_id
LEFT JOIN main ON main.catalog_element_id = s.catalog_element_id
LEFT JOIN {schema}.pipelines p ON p.id = s.pipeline_id
LEFT JOIN {schema}.sources o ON o.id = s.source_id
LEFT JOIN {schema}.users u ON u.id = s.responsible_user_id
