SELECT count(*) FROM airport.flights
