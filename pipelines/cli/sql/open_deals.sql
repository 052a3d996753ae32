-- Open deals and their value per pipeline and stage
SELECT p.name AS pipeline, s.name AS stage, count(*) AS deals, sum(l.price) AS value
FROM leads l
JOIN pipelines p ON p.id = l.pipeline_id
JOIN statuses s ON s.pipeline_id = l.pipeline_id AND s.id = l.status_id
WHERE l._deleted_at IS NULL AND l.status_id NOT IN (142, 143) AND NOT p.is_archive
GROUP BY p.id, p.name, p.sort, s.name, s.sort
ORDER BY p.sort, s.sort;
