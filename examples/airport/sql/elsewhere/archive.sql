SELECT count(*) FROM headwater.events WHERE type LIKE 'flight.%'
