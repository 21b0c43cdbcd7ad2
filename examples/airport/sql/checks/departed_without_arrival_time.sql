SELECT count(*) FROM airport.flights WHERE departed_at IS NOT NULL AND arrival_clock IS NULL
