INSERT INTO airport.replay (days) VALUES (%(days)s) ON CONFLICT DO NOTHING
