SELECT jsonb_agg(jsonb_build_array(dest, flights, carriers) ORDER BY flights DESC, dest COLLATE "C" DESC)
  FROM (SELECT data ->> 'dest' AS dest, count(*) AS flights, count(DISTINCT data ->> 'carrier') AS carriers
          FROM headwater.events WHERE type IN ('flight.cancelled', 'flight.diverted')
         GROUP BY 1 ORDER BY 2 DESC, (data ->> 'dest') COLLATE "C" DESC LIMIT 10) AS leaders
