-- The number of each stage in its pipeline, as labels show it, and its place in the funnel, in which lost is the last one
SELECT pipeline_id, id AS status_id, row_number() OVER (PARTITION BY pipeline_id ORDER BY sort, id) AS number,
       row_number() OVER (PARTITION BY pipeline_id ORDER BY id = 143, sort, id) AS place
FROM {schema}.statuses GROUP BY pipeline_id, id
