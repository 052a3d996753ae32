-- The pipeline 90 days ago: open deals per stage, including stages renamed or removed since
WITH day AS (SELECT ((now() AT TIME ZONE timezone)::date - 90)::timestamp AT TIME ZONE timezone AS at FROM accounts)
SELECT p.name AS pipeline, s.name AS stage, count(*) AS deals, sum(l.price) AS value
FROM day
JOIN lead_status_history h ON h.entered_at <= day.at AND (h.left_at > day.at OR h.left_at IS NULL)
JOIN leads l ON l.id = h.lead_id AND (l._deleted_at > day.at OR l._deleted_at IS NULL)
LEFT JOIN pipelines p ON p.id = h.pipeline_id
LEFT JOIN statuses s ON s.pipeline_id = h.pipeline_id AND s.id = h.status_id
WHERE h.status_id NOT IN (142, 143)
GROUP BY p.id, p.name, p.sort, s.id, s.name, s.sort
ORDER BY p.sort, s.sort;
