SELECT count(*) FROM airport.flights WHERE departed_at IS NULL
