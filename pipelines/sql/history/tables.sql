-- What one rebuilding works with. Columns that rows are sorted by come first and compare by bytes
CREATE TEMP TABLE kinds (told text, entity_type text) ON COMMIT DROP;
INSERT INTO kinds VALUES ('lead', 'leads'), ('contact', 'contacts'), ('company', 'companies'), ('customer', 'customers');
CREATE TEMP TABLE affected (entity_type text, entity_id int8) ON COMMIT DROP;
CREATE TEMP TABLE told (entity_id int8, field_id int8, attribute text COLLATE "C", entity_type text COLLATE "C", at timestamptz, id text COLLATE "C",
                        changed_by int8, before jsonb, after jsonb) ON COMMIT DROP;
CREATE TEMP TABLE records (entity_id int8, attribute text COLLATE "C", entity_type text COLLATE "C", born timestamptz, created_by int8, value jsonb,
                           updated_at timestamptz, synced_at timestamptz) ON COMMIT DROP;
CREATE TEMP TABLE changes (entity_id int8, field_id int8, attribute text COLLATE "C", entity_type text COLLATE "C", at timestamptz, before jsonb,
                           after jsonb, changed_by int8, source text) ON COMMIT DROP;
CREATE TEMP TABLE intervals (entity_id int8, attribute text COLLATE "C", entity_type text COLLATE "C", entered_at timestamptz, left_at timestamptz,
                             value jsonb, changed_by int8, source text) ON COMMIT DROP
