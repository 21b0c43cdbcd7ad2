INSERT INTO football.teams (name) VALUES (%s)
