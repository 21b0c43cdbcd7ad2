INSERT INTO football.substitutions (id, match, off, came_on, minute, added)
VALUES (%(moment)s, %(match)s, %(player)s, %(on)s, %(minute)s, %(added)s)
