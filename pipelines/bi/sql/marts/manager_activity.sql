-- Activity of users (Отчёт по сотрудникам), day by day: what happened to the records for which they were responsible then
SELECT
  o.day, -- Day, in the account's time zone
  coalesce(u.name, 'user ' || nullif(o.user_id, 0), '(none)') AS responsible_user, -- Who was responsible for the record at that moment
  o.moves, -- Deals that came into another stage, won and lost included
  o.won, -- Deals won
  o.lost, -- Deals lost
  o.tasks_created, -- Tasks made
  o.tasks_completed, -- Tasks done: on the day of the event, or of the task's last change where no event tells
  o.notes, -- Notes written
  o.calls_in, -- Calls that came in
  o.calls_out, -- Calls that went out
  o.call_seconds, -- How long they lasted, in seconds
  o.user_id AS responsible_user_id -- That user's id; null: nobody
FROM {stored_user_days} o
LEFT JOIN {schema}.users u ON u.id = o.user_id
