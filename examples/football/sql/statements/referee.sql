INSERT INTO football.referees (name) VALUES (%s)
