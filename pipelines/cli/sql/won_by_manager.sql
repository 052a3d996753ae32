-- For charts: the best five of the last 365 days, from a view that is made for BI tools
SELECT responsible_user, sum(deals) FILTER (WHERE outcome = 'won') AS won,
       sum(deals) FILTER (WHERE outcome = 'lost') AS lost, sum(value) FILTER (WHERE outcome = 'won') AS value
FROM amocrm_bi.win_loss
WHERE closed_date > (SELECT (now() AT TIME ZONE timezone)::date - 365 FROM amocrm.accounts)
GROUP BY responsible_user
ORDER BY value DESC NULLS LAST
LIMIT 5;
