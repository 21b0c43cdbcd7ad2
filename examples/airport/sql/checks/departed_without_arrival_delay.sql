SELECT count(*) FROM airport.flights WHERE departed_at IS NOT NULL AND arrival_delay IS NULL
