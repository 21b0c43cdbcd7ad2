COPY airport.planes FROM STDIN (FORMAT csv, HEADER, NULL 'NA')
