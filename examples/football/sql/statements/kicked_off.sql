INSERT INTO football.matches (id, cup, stage, home, away, referee)
VALUES (%(match)s, %(cup)s, %(stage)s, %(home)s, %(away)s, %(referee)s)
