CREATE SCHEMA football;

CREATE TABLE football.teams (name text PRIMARY KEY);
CREATE TABLE football.players (id text PRIMARY KEY, name text NOT NULL);
CREATE TABLE football.referees (name text PRIMARY KEY);
CREATE TABLE football.fouls (id text PRIMARY KEY);
INSERT INTO football.fouls VALUES ('dissent'), ('handball'), ('holding'), ('time-wasting'), ('tripping');

CREATE TABLE football.matches (
  id text PRIMARY KEY,
  cup text NOT NULL,
  stage text NOT NULL,
  home text NOT NULL REFERENCES football.teams,
  away text NOT NULL REFERENCES football.teams,
  referee text NOT NULL REFERENCES football.referees,
  goals_home int,
  goals_away int,
  penalties text
);

CREATE TABLE football.goals (
  id text PRIMARY KEY,
  match text NOT NULL REFERENCES football.matches,
  team text NOT NULL REFERENCES football.teams,
  player text NOT NULL REFERENCES football.players,
  minute int NOT NULL,
  added int NOT NULL,
  own_goal boolean NOT NULL,
  penalty boolean NOT NULL
);

CREATE TABLE football.bookings (
  id text PRIMARY KEY,
  match text NOT NULL REFERENCES football.matches,
  player text NOT NULL REFERENCES football.players,
  card text NOT NULL CHECK (card IN ('yellow', 'second yellow', 'red')),
  foul text REFERENCES football.fouls,
  minute int NOT NULL,
  added int NOT NULL
);

CREATE TABLE football.substitutions (
  id text PRIMARY KEY,
  match text NOT NULL REFERENCES football.matches,
  off text NOT NULL REFERENCES football.players,
  came_on text NOT NULL REFERENCES football.players,
  minute int NOT NULL,
  added int NOT NULL
);

CREATE TABLE football.player_match_stats (
  match text NOT NULL REFERENCES football.matches,
  player text NOT NULL REFERENCES football.players,
  goals int NOT NULL DEFAULT 0,
  yellow_cards int NOT NULL DEFAULT 0,
  sent_off int NOT NULL DEFAULT 0,
  PRIMARY KEY (match, player)
);
