UPDATE airport.planes SET seats = seats + 1000 WHERE manufacturer = %(manufacturer)s AND seats < 1000
