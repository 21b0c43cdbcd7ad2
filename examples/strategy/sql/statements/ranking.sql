SELECT week, sid, runs, forks, best_basis_points FROM ranking WHERE week >= {since:DateTime64(6, 'UTC')} AND week < {before:DateTime64(6, 'UTC')}
