INSERT INTO football.players (id, name) VALUES (%s, %s)
