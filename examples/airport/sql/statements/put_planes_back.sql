UPDATE airport.planes SET seats = seats - 1000 WHERE seats >= 1000
