"""What each tile of the declaration shows, as SQL over the tables of account.sql: written apart from the marts
and from the declaration. A tile names its facts, the columns that it is divided by, and its measures."""

from __future__ import annotations

from dataclasses import dataclass

ZONE = "AT TIME ZONE 'Asia/Kathmandu'"
ALIVE = "_deleted_at IS NULL"
STAGES = """SELECT s.pipeline_id, s.id, s.sort, (SELECT lpad(count(*)::text, 2, '0') FROM amocrm.statuses t
  WHERE t.pipeline_id = s.pipeline_id AND (t.sort, t.id) <= (s.sort, s.id)) || '. ' || s.name AS stage
FROM amocrm.statuses s"""
CLOSED = f"""SELECT date(l.closed_at {ZONE}) AS day, l.pipeline_id AS pipeline, l.responsible_user_id AS manager,
  l.status_id = 142 AS won, l.price, extract(epoch FROM l.closed_at - l.created_at) / 86400 AS days, r.name AS reason,
  (SELECT g.stage FROM amocrm.lead_status_history h JOIN stages g ON g.pipeline_id = h.pipeline_id AND g.id = h.status_id
   WHERE h.lead_id = l.id AND h.status_id < 142 ORDER BY h.entered_at DESC LIMIT 1) AS stage
FROM amocrm.leads l LEFT JOIN amocrm.loss_reasons r ON r.id = l.loss_reason_id
WHERE l.{ALIVE} AND l.status_id IN (142, 143)"""
OPEN = f"""SELECT l.pipeline_id AS pipeline, l.responsible_user_id AS manager, l.price, g.stage,
  l.price * (SELECT avg((x.status_id = 142)::integer) FROM amocrm.leads x WHERE x.{ALIVE} AND x.status_id IN (142, 143)
    AND (EXISTS (SELECT FROM amocrm.lead_status_history h WHERE h.lead_id = x.id AND h.pipeline_id = l.pipeline_id
                 AND h.status_id = l.status_id)
      OR x.pipeline_id = l.pipeline_id AND NOT EXISTS (
        SELECT FROM amocrm.lead_status_history h JOIN amocrm.leads y ON y.id = h.lead_id AND y.{ALIVE}
        WHERE y.status_id IN (142, 143) AND h.pipeline_id = l.pipeline_id AND h.status_id = l.status_id))) AS expected
FROM amocrm.leads l JOIN stages g ON g.pipeline_id = l.pipeline_id AND g.id = l.status_id
WHERE l.{ALIVE} AND l.closed_at IS NULL"""
CREATED = f"""SELECT date(l.created_at {ZONE}) AS day, l.pipeline_id AS pipeline, l.responsible_user_id AS manager,
  l.status_id, l.price, coalesce((SELECT value_text FROM amocrm.lead_custom_field_values WHERE lead_id = l.id AND field_id = 41),
    (SELECT name FROM amocrm.sources WHERE id = l.source_id), u.source_name, 'unknown') AS channel, u.category,
  (SELECT value_text FROM amocrm.lead_custom_field_values WHERE lead_id = l.id AND field_id = 42) AS campaign
FROM amocrm.leads l LEFT JOIN amocrm.unsorted_leads x ON x.lead_id = l.id
LEFT JOIN amocrm.unsorted u ON u.uid = x.unsorted_uid WHERE l.{ALIVE}"""
FUNNEL = f"""SELECT date(l.created_at {ZONE}) AS day, l.pipeline_id AS pipeline, l.responsible_user_id AS manager, g.stage,
  (g.sort <= (SELECT max(t.sort) FROM amocrm.lead_status_history h JOIN amocrm.statuses t
     ON t.pipeline_id = h.pipeline_id AND t.id = h.status_id WHERE h.lead_id = l.id AND h.status_id <> 143))::integer AS reached
FROM amocrm.leads l JOIN stages g ON g.pipeline_id = l.pipeline_id AND g.id <> 143 WHERE l.{ALIVE}"""
CALLS = f"""SELECT date(created_at {ZONE}) AS day, responsible_user_id AS manager,
  params ->> 'call_status' = '4' AS answered, (params ->> 'duration')::integer AS seconds
FROM amocrm.notes WHERE note_type LIKE 'call%%'"""
ACTIVITY = f"""SELECT date(d.at {ZONE}) AS day, l.responsible_user_id AS manager, d.what, d.seconds FROM (
  SELECT lead_id, entered_at AS at, 'move' AS what, 0 AS seconds FROM amocrm.lead_status_history WHERE source = 'event'
  UNION ALL SELECT entity_id, created_at, note_type, coalesce((params ->> 'duration')::integer, 0) FROM amocrm.notes
  UNION ALL SELECT entity_id, created_at, 'task', 0 FROM amocrm.tasks
  UNION ALL SELECT entity_id, updated_at, 'done', 0 FROM amocrm.tasks WHERE is_completed
) d JOIN amocrm.leads l ON l.id = d.lead_id"""
RESPONSES = f"""SELECT f.*, CASE WHEN at IS NULL THEN 'none' WHEN worked <= 900 THEN '15m' WHEN worked <= 3600 THEN '1h'
  WHEN worked <= 4 * 3600 THEN '4h' ELSE 'later' END AS wait
FROM (SELECT date(l.created_at {ZONE}) AS day, l.pipeline_id AS pipeline, l.responsible_user_id AS manager, n.at,
  (SELECT coalesce(sum(greatest(0, extract(epoch FROM least(n.at, (d::date + w.closes_at) {ZONE})
                                           - greatest(l.created_at, (d::date + w.opens_at) {ZONE})))), 0)
   FROM generate_series(date(l.created_at {ZONE}), date(n.at {ZONE}), interval '1 day') d
   JOIN amocrm.working_hours w ON w.weekday = extract(isodow FROM d::date) WHERE n.at IS NOT NULL) AS worked
  FROM amocrm.leads l LEFT JOIN LATERAL (
    SELECT min(created_at) AS at FROM amocrm.notes WHERE entity_id = l.id AND created_at >= l.created_at
      AND created_at <= coalesce(l.closed_at, 'infinity')
      AND (note_type = 'call_out' OR note_type = 'call_in' AND params ->> 'call_status' = '4')) n ON true
  WHERE l.{ALIVE}) f"""
OVERDUE = f"""SELECT l.pipeline_id AS pipeline, t.responsible_user_id AS manager, t.entity_id AS id,
  date(now() {ZONE}) - date(t.complete_till {ZONE}) AS days
FROM amocrm.tasks t LEFT JOIN amocrm.leads l ON l.id = t.entity_id AND l.{ALIVE}
WHERE NOT t.is_completed AND t.complete_till < now()"""
STUCK = f"""SELECT l.id, l.pipeline_id AS pipeline, l.responsible_user_id AS manager, l.price
FROM amocrm.leads l JOIN amocrm.lead_status_history h ON h.lead_id = l.id AND h.left_at IS NULL
WHERE l.{ALIVE} AND l.closed_at IS NULL AND now() - h.entered_at > (
  SELECT percentile_cont(0.9) WITHIN GROUP (ORDER BY o.left_at - o.entered_at) FROM amocrm.lead_status_history o
  JOIN amocrm.leads x ON x.id = o.lead_id AND x.{ALIVE} WHERE o.pipeline_id = h.pipeline_id AND o.status_id = h.status_id)"""
WITHOUT_TASK = f"""SELECT id, pipeline_id AS pipeline, responsible_user_id AS manager FROM amocrm.leads l
WHERE {ALIVE} AND closed_at IS NULL AND id NOT IN (SELECT entity_id FROM amocrm.tasks WHERE NOT is_completed)"""
REQUIRED = f"""SELECT l.id, l.pipeline_id AS pipeline, g.stage, 'leads' AS kind, f.name AS field,
  l.id NOT IN (SELECT lead_id FROM amocrm.lead_custom_field_values WHERE field_id = 32) AS empty
FROM amocrm.leads l JOIN stages g ON g.pipeline_id = l.pipeline_id AND g.id = l.status_id JOIN amocrm.custom_fields f ON f.id = 32
WHERE l.{ALIVE} AND l.pipeline_id = 7 AND l.status_id = 142"""
DUPLICATES = """SELECT right(regexp_replace(value_text, '\\D', '', 'g'), 10) FROM amocrm.contact_custom_field_values
GROUP BY 1 HAVING count(*) > 1"""
BOUGHT = "SELECT customer_id, price, completed_at FROM amocrm.transactions WHERE NOT is_deleted"
CUSTOMERS = f"""SELECT c.id, c.responsible_user_id AS manager, count(t.price) AS purchases, coalesce(sum(t.price), 0) AS ltv,
  max(t.completed_at) AS last
FROM amocrm.customers c LEFT JOIN ({BOUGHT}) t ON t.customer_id = c.id GROUP BY c.id"""
SEGMENTS = f"""SELECT *, CASE WHEN r >= 4 AND f >= 4 THEN 'champions' WHEN r >= 4 AND f <= 2 THEN 'new' WHEN r >= 3 THEN 'loyal'
  WHEN f >= 3 THEN 'at risk' ELSE 'lost' END AS segment
FROM (SELECT a.*, least(5, 1 + 5 * (SELECT count(*) FROM k b WHERE b.last < a.last) / (SELECT count(*) - 1 FROM k)) AS r,
             least(5, 1 + 5 * (SELECT count(*) FROM k b WHERE b.purchases < a.purchases) / (SELECT count(*) - 1 FROM k)) AS f
      FROM k a) s"""
SEGMENTS = f"WITH k AS (SELECT * FROM ({CUSTOMERS}) c WHERE purchases > 0) {SEGMENTS}"
COHORTS = f"""WITH b AS (SELECT customer_id, date_trunc('month', completed_at {ZONE}) AS month, sum(price) AS price
           FROM ({BOUGHT}) t GROUP BY 1, 2),
k AS (SELECT customer_id, min(month) AS cohort FROM b GROUP BY 1)
SELECT to_char(k.cohort, 'YYYY-MM') AS cohort, lpad(n::text, 2, '0') AS later, b.customer_id, b.price
FROM k CROSS JOIN generate_series(0, 12) n
LEFT JOIN b ON b.customer_id = k.customer_id AND b.month = k.cohort + n * interval '1 month'
WHERE k.cohort + n * interval '1 month' <= now() {ZONE} AND k.cohort > now() - interval '14 months'"""
SOLD = f"""SELECT date(s.at {ZONE}) AS day, s.pipeline, s.manager, e.name AS product, 'Goods' AS catalog, s.quantity,
  s.quantity * 100 * e.id AS amount
FROM (SELECT l.closed_at AS at, l.pipeline_id AS pipeline, l.responsible_user_id AS manager, x.catalog_element_id, x.quantity
      FROM amocrm.lead_catalog_elements x JOIN amocrm.leads l ON l.id = x.lead_id WHERE l.{ALIVE} AND l.status_id = 142
      UNION ALL SELECT t.completed_at, NULL, c.responsible_user_id, x.catalog_element_id, x.quantity
      FROM amocrm.transaction_catalog_elements x JOIN amocrm.transactions t ON t.id = x.transaction_id
      JOIN amocrm.customers c ON c.id = t.customer_id) s JOIN amocrm.catalog_elements e ON e.id = s.catalog_element_id"""
PLANS = f"""SELECT p.month AS day, to_char(p.month, 'YYYY-MM') AS month, CASE p.responsible_user_id WHEN 0 THEN '(all)' ELSE u.name END AS of_user,
  '(all)' AS of_pipeline, p.value, p.deals, w.*
FROM amocrm.sales_plans p LEFT JOIN amocrm.users u ON u.id = p.responsible_user_id CROSS JOIN LATERAL (
  SELECT count(*) AS fact_deals, sum(price) AS fact FROM amocrm.leads WHERE {ALIVE} AND status_id = 142
    AND date_trunc('month', closed_at {ZONE}) = p.month AND p.responsible_user_id IN (0, responsible_user_id)) w"""
FIELDS = f"""SELECT c.*, f.name AS field, v.value_text AS option FROM (
  SELECT id, date(closed_at {ZONE}) AS day, pipeline_id AS pipeline, responsible_user_id AS manager, status_id = 142 AS won, price
  FROM amocrm.leads WHERE {ALIVE} AND closed_at IS NOT NULL) c
JOIN amocrm.lead_custom_field_values v ON v.lead_id = c.id AND v.field_id IN (31, 32) JOIN amocrm.custom_fields f ON f.id = v.field_id"""


@dataclass(frozen=True)
class Truth:
    """`by`: SQL of what the tile is divided by, as the page shows it; `measures`: SQL of its figures. Of a
    list of records: `by` is the id of each."""

    facts: str
    by: tuple[str, ...]
    measures: tuple[str, ...]

    def sql(self, columns: set[str]) -> str:
        """The tile's figures. `columns`: those of the facts by which the tile is filtered."""
        limits = [f"{name} = %({name})s" for name in ("pipeline", "manager") if name in columns]
        limits += ["day BETWEEN %(from)s AND %(to)s"] if "day" in columns else []
        where = f" WHERE {' AND '.join(limits)}" if limits else ""
        group = f" GROUP BY {', '.join(map(str, range(1, len(self.by) + 1)))}" if self.by and self.measures else ""
        return (f"WITH stages AS ({STAGES}) SELECT {', '.join([*self.by, *self.measures])} "
                f"FROM ({self.facts}) facts{where}{group}")


def share(part: str, whole: str) -> str:
    return f"({part})::float8 / nullif({whole}, 0)"


MONTH, MANAGER = "date_trunc('month', day)::date", "manager"
WON, LOST = "count(*) FILTER (WHERE won)", "count(*) FILTER (WHERE NOT won)"
WON_VALUE, AVERAGE = "sum(price) FILTER (WHERE won)", "avg(price) FILTER (WHERE won)"
RATE, DAYS = share(WON, "count(*)"), "avg(days) FILTER (WHERE won)"
NEW = ("count(*)", "count(*) FILTER (WHERE status_id = 142)", "count(*) FILTER (WHERE status_id = 143)",
       share("count(*) FILTER (WHERE status_id = 142)", "count(*) FILTER (WHERE status_id IN (142, 143))"),
       "sum(price) FILTER (WHERE status_id = 142)", "avg(price) FILTER (WHERE status_id = 142)")
COUNTED = {name: f"count(*) FILTER (WHERE what = '{what}')" for name, what in {
    "moves": "move", "created": "task", "done": "done", "notes": "common", "in": "call_in", "out": "call_out"}.items()}
ANSWERED = "count(*) FILTER (WHERE answered)"
BUYERS = "count(*) FILTER (WHERE purchases > 0)"
OPEN_SUMS = ("sum(price)", "sum(expected)", "count(*)")
TRUTH = {
    "open_value": Truth(OPEN, (), ("sum(price)",)), "open_deals": Truth(OPEN, (), ("count(*)",)),
    "expected_value": Truth(OPEN, (), ("sum(expected)",)),
    "won_value": Truth(CLOSED, (), (WON_VALUE,)), "won_deals": Truth(CLOSED, (), (WON,)),
    "win_rate": Truth(CLOSED, (), (RATE,)), "average_value": Truth(CLOSED, (), (AVERAGE,)),
    "cycle_days": Truth(CLOSED, (), (DAYS,)),
    "funnel": Truth(FUNNEL, ("stage",), ("sum(reached)", "count(*)")),
    "stages_now": Truth(OPEN, ("stage",), OPEN_SUMS),
    "won_by_manager": Truth(CLOSED, (MONTH, MANAGER), (WON_VALUE, WON)),
    "won_and_lost": Truth(CLOSED, (MONTH,), (WON, LOST, RATE)),
    "loss_reasons": Truth(f"SELECT * FROM ({CLOSED}) c WHERE NOT won", ("reason", "stage"), ("count(*)", "sum(price)")),
    "forecast_by_manager": Truth(OPEN, (MANAGER,), OPEN_SUMS),
    "plan_fact": Truth(PLANS, ("month", "of_user", "of_pipeline"), (
        "sum(value)", "sum(fact)", share("sum(fact)", "sum(value)"), "sum(deals)", "sum(fact_deals)")),
    "calls": Truth(CALLS, (), ("count(*)",)), "answered_share": Truth(CALLS, (), (share(ANSWERED, "count(*)"),)),
    "tasks_done": Truth(ACTIVITY, (), (COUNTED["done"],)),
    "response_hours": Truth(RESPONSES, (), ("sum(worked) / 3600 / nullif(count(at), 0)",)),
    "responded_share": Truth(RESPONSES, (), (share("count(at)", "count(*)"),)),
    "overdue_now": Truth(OVERDUE, (), ("count(*)",)),
    "manager_results": Truth(CLOSED, (MANAGER,), (WON_VALUE, WON, LOST, RATE, AVERAGE, DAYS)),
    "manager_activity": Truth(ACTIVITY, (MANAGER,), (*COUNTED.values(), "sum(seconds) / 60.0")),
    "activity_by_month": Truth(ACTIVITY, (MONTH,), tuple(
        COUNTED[name] for name in ("moves", "done", "notes", "in", "out"))),
    "calls_by_manager": Truth(CALLS, (MANAGER,), (ANSWERED, "count(*) FILTER (WHERE NOT answered)")),
    "first_response": Truth(RESPONSES, (MANAGER, "wait"), ("count(*)",)),
    "overdue_by_manager": Truth(OVERDUE, (MANAGER,), ("count(*)", "avg(days)")),
    "stuck_count": Truth(STUCK, (), ("count(*)",)), "stuck_value": Truth(STUCK, (), ("sum(price)",)),
    "without_task_count": Truth(WITHOUT_TASK, (), ("count(*)",)),
    "overdue_count": Truth(OVERDUE, (), ("count(*)",)),
    "empty_count": Truth(REQUIRED, (), ("count(*) FILTER (WHERE empty)",)),
    "duplicate_count": Truth(DUPLICATES, (), ("count(*)",)),
    "stuck_deals": Truth(STUCK, ("id",), ()), "deals_without_task": Truth(WITHOUT_TASK, ("id",), ()),
    "overdue_tasks": Truth(OVERDUE, ("id",), ()), "duplicates": Truth(DUPLICATES, ("NULL",), ()),
    "empty_fields": Truth(REQUIRED, ("pipeline", "stage", "field", "kind"), (
        "count(*) FILTER (WHERE empty)", "count(*)", share("count(*) FILTER (WHERE empty)", "count(*)"))),
    "empty_field_deals": Truth(f"SELECT * FROM ({REQUIRED}) r WHERE empty", ("id",), ()),
    "created_deals": Truth(CREATED, (), NEW[:1]), "created_won_value": Truth(CREATED, (), (NEW[4],)),
    "created_win_rate": Truth(CREATED, (), (NEW[3],)),
    "channels": Truth(CREATED, ("channel",), (NEW[4], *NEW[:4], NEW[5])),
    "channels_by_month": Truth(CREATED, (MONTH, "channel"), NEW[:1]),
    "channel_table": Truth(CREATED, ("channel",), NEW), "categories": Truth(CREATED, ("category",), NEW[:2]),
    "campaigns": Truth(f"SELECT * FROM ({CREATED}) c WHERE campaign IS NOT NULL", ("campaign",), NEW),
    "customers": Truth(CUSTOMERS, (), ("count(*)",)),
    "repeat_share": Truth(CUSTOMERS, (), (share("count(*) FILTER (WHERE purchases > 1)", BUYERS),)),
    "average_ltv": Truth(CUSTOMERS, (), (share("sum(ltv)", BUYERS),)),
    "sold_amount": Truth(SOLD, (), ("sum(amount)",)),
    "products": Truth(SOLD, ("product",), ("sum(amount)", "sum(quantity)", "count(*)")),
    "sold_by_month": Truth(SOLD, (MONTH, "catalog"), ("sum(amount)",)),
    "rfm": Truth(SEGMENTS, ("segment",), ("count(*)", "sum(ltv)")),
    "cohorts": Truth(COHORTS, ("cohort", "later"), (share("count(customer_id)", "count(*)"), "sum(price)")),
    "best_customers": Truth(f"SELECT * FROM ({CUSTOMERS}) c WHERE purchases > 0", ("id",), ()),
    "won_by_field": Truth(FIELDS, ("field", "option"), (WON_VALUE, WON, LOST, RATE, AVERAGE))}
