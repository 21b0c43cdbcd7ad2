SELECT carrier,
       date_trunc('day', occurred_at) AS day,
       count(*) AS departures,
       avg(delay_minutes) AS mean_delay_minutes,
       approx_quantile(delay_minutes, 0.9) AS delay_of_nine_in_ten
FROM flight.departed
GROUP BY carrier, date_trunc('day', occurred_at)
