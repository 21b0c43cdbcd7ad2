SELECT sum(delay_minutes) / sum(departures) FROM headwater_views.carrier_delays
