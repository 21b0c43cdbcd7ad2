UPDATE football.matches SET goals_home = %(goals_home)s, goals_away = %(goals_away)s, penalties = %(penalties)s
WHERE id = %(match)s
