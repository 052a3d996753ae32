-- How long the stays in each stage lasted that are over, in hours
SELECT h.pipeline_id, h.status_id, count(*) AS stays, avg(x.hours) AS mean,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY x.hours) AS median, percentile_cont(0.9) WITHIN GROUP (ORDER BY x.hours) AS p90
FROM {schema}.lead_status_history h JOIN {schema}.leads l ON l.id = h.lead_id AND l._deleted_at IS NULL
CROSS JOIN LATERAL (SELECT (extract(epoch FROM h.left_at - h.entered_at) / 3600)::float8 AS hours) x
WHERE h.status_id NOT IN (142, 143) AND h.left_at IS NOT NULL GROUP BY 1, 2
