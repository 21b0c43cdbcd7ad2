SELECT origin, dest,
       count(air_minutes) AS arrivals,
       count(*) FILTER (WHERE air_minutes IS NULL) AS diversions,
       avg(air_minutes) AS mean_air_minutes,
       avg(delay_minutes) AS mean_delay_minutes
FROM (
  SELECT origin, dest, air_minutes, delay_minutes FROM flight.arrived
  UNION ALL
  SELECT origin, dest, NULL::bigint, NULL::bigint FROM flight.diverted
) AS flights
GROUP BY origin, dest
