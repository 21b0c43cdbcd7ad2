-- The application's own schema. Headwater knows nothing of it.
CREATE SCHEMA IF NOT EXISTS airport;

CREATE TABLE IF NOT EXISTS airport.flights (
  flight text PRIMARY KEY,
  carrier text NOT NULL,
  number int NOT NULL,
  origin text NOT NULL,
  dest text NOT NULL,
  tail text,
  distance_miles int NOT NULL,
  departs_at timestamptz NOT NULL,
  arrives_clock int NOT NULL,
  status text NOT NULL DEFAULT 'scheduled'
    CHECK (status IN ('scheduled', 'cancelled', 'departed', 'arrived', 'diverted')),
  departed_at timestamptz,
  departure_delay int,
  arrived_at timestamptz,
  arrival_clock int,
  arrival_delay int,
  air_minutes int
) WITH (fillfactor = 60);  -- each row is updated twice, and soon

-- How far the replay is: moved by the transactions that replay, so that it goes on where it was.
CREATE TABLE IF NOT EXISTS airport.replay (
  days int NOT NULL,
  changes_done int NOT NULL DEFAULT 0,
  seconds double precision NOT NULL DEFAULT 0,
  relay_kills int NOT NULL DEFAULT 0,
  token text
);
CREATE UNIQUE INDEX IF NOT EXISTS one_replay ON airport.replay ((true));

-- What the source holds beside flights, its columns as they are.
CREATE TABLE IF NOT EXISTS airport.airlines (carrier text PRIMARY KEY, name text NOT NULL);

CREATE TABLE IF NOT EXISTS airport.airports (
  faa text PRIMARY KEY, name text NOT NULL, lat float NOT NULL, lon float NOT NULL, alt int NOT NULL,
  tz int NOT NULL, dst text NOT NULL, tzone text
);

CREATE TABLE IF NOT EXISTS airport.planes (
  tailnum text PRIMARY KEY, year int, type text NOT NULL, manufacturer text NOT NULL,
  model text NOT NULL, engines int NOT NULL, seats int NOT NULL, speed int, engine text NOT NULL
);

CREATE TABLE IF NOT EXISTS airport.weather (
  origin text NOT NULL, year int NOT NULL, month int NOT NULL, day int NOT NULL, hour int NOT NULL,
  temp float, dewp float, humid float, wind_dir int, wind_speed float, wind_gust float,
  precip float NOT NULL, pressure float, visib float NOT NULL, time_hour timestamptz NOT NULL,
  PRIMARY KEY (origin, time_hour)
);
