-- Settings of one rebuild, and its records, by both names of their kind. Merge joins are off: they would sort
-- by kinds first, and comparing texts is expensive
SET LOCAL work_mem = '256MB'; SET LOCAL random_page_cost = 1.1; SET LOCAL enable_mergejoin = off;
SET LOCAL jit = off;
SET LOCAL client_min_messages = warning;
CREATE TEMP TABLE affected (entity_type text, entity_id int8, event_kind text) ON COMMIT DROP
