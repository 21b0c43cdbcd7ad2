SELECT count(*) FROM airport.flights WHERE tail IS NULL
