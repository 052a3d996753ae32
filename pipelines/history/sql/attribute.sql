-- Temporary tables for the history of one attribute: changes that events report, and the records' current
-- values. Ids of events are compared by bytes (COLLATE "C")
DROP TABLE IF EXISTS pg_temp.reported, pg_temp.records;
CREATE TEMP TABLE reported (entity_id int8, field_id int8, entity_type text, at timestamptz, id text COLLATE "C",
                        changed_by int8, before {value}, after {value}) ON COMMIT DROP;
CREATE TEMP TABLE records (entity_id int8, entity_type text, born timestamptz, created_by int8, value {value},
                           updated_at timestamptz, synced_at timestamptz) ON COMMIT DROP
