-- Deals won in the last 365 days by the material of their fronts: each custom field is a column of the wide view
SELECT материал_фасада, count(*) AS deals, sum(price) AS value, round(avg(площадь_м2), 1) AS area
FROM amocrm_bi.leads
WHERE outcome = 'won' AND closed_date > (SELECT (now() AT TIME ZONE timezone)::date - 365 FROM amocrm.accounts)
GROUP BY материал_фасада
ORDER BY value DESC;
