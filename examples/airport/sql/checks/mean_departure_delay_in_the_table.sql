SELECT avg(departure_delay) FROM airport.flights
