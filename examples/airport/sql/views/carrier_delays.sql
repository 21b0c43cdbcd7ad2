SELECT carrier,
       count(delay) AS departures,
       count(*) FILTER (WHERE delay IS NULL) AS cancellations,
       sum(delay) AS delay_minutes,
       avg(delay) AS mean_delay_minutes,
       max(delay) AS longest_delay_minutes
FROM (
  SELECT carrier, delay_minutes AS delay FROM flight.departed
  UNION ALL
  SELECT carrier, NULL::bigint FROM flight.cancelled
) AS flights
GROUP BY carrier
