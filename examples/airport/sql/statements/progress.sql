SELECT days, changes_done, seconds, relay_kills, token FROM airport.replay
