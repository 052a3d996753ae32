-- Won and lost deals per responsible user in the last 90 days of the account's time zone
SELECT coalesce(u.name, 'user ' || l.responsible_user_id) AS responsible,
       count(*) FILTER (WHERE l.status_id = 142) AS won,
       count(*) FILTER (WHERE l.status_id = 143) AS lost,
       coalesce(sum(l.price) FILTER (WHERE l.status_id = 142), 0) AS won_value
FROM leads l
CROSS JOIN accounts a
LEFT JOIN users u ON u.id = l.responsible_user_id
WHERE l._deleted_at IS NULL AND l.status_id IN (142, 143)
  AND (l.closed_at AT TIME ZONE a.timezone)::date > (now() AT TIME ZONE a.timezone)::date - 90
GROUP BY 1
ORDER BY won_value DESC, won DESC;
