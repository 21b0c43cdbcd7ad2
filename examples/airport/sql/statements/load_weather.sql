COPY airport.weather FROM STDIN (FORMAT csv, HEADER, NULL 'NA')
