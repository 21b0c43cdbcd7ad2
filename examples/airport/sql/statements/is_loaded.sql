SELECT EXISTS (SELECT FROM airport.airlines)
