-- Required fields that are empty, by stage: deals that are in a stage in which a field must be filled, and how many of them have it empty
SELECT
  p.name AS pipeline, -- Pipeline
  s.name AS status, -- Stage
  j.entity_type, -- Whose field it is: the deal's (leads), its main contact's (contacts) or its company's (companies)
  f.name AS field, -- Field
  j.deals, -- Deals that are in the stage
  j.empty, -- Of them, those whose field is empty, or that have no such contact or company
  round(j.empty::numeric / j.deals, 4) AS share_empty, -- empty / deals
  j.lead_ids, -- These deals
  s.sort AS status_sort, -- Order of the stage
  j.pipeline_id, -- Pipeline's id
  j.status_id, -- Stage's id
  j.field_id, -- Field's id
  ARRAY(SELECT {url} || '/leads/detail/' || i.lead_id FROM unnest(j.lead_ids) i (lead_id) ORDER BY i.lead_id) AS urls, -- Addresses of their cards
  s.label AS status_label -- Stage behind its number in the pipeline, so that labels sort as the stages do: 02. Offer
FROM {stored_empty_fields} j
LEFT JOIN {schema}.custom_fields f ON f.entity_type = j.entity_type AND f.id = j.field_id
LEFT JOIN {schema}.pipelines p ON p.id = j.pipeline_id
LEFT JOIN (
  SELECT pipeline_id, id, name, sort, type, lpad(row_number() OVER (PARTITION BY pipeline_id ORDER BY sort, id)::text, 2, '0') || '. ' || name AS label
  FROM {schema}.statuses GROUP BY pipeline_id, id) s ON s.pipeline_id = j.pipeline_id AND s.id = j.status_id
WHERE s.type IS DISTINCT FROM 1
