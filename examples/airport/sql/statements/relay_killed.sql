UPDATE airport.replay SET relay_kills = relay_kills + 1 RETURNING relay_kills
