-- Deals won this year by the material of their fronts: each custom field is a column of the wide view
SELECT материал_фасада, count(*) AS deals, sum(price) AS value, round(avg(площадь_м2), 1) AS area
FROM amocrm_bi.leads
WHERE outcome = 'won' AND closed_date >= '2026-01-01'
GROUP BY материал_фасада
ORDER BY value DESC;
