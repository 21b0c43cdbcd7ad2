COPY airport.airlines FROM STDIN (FORMAT csv, HEADER, NULL 'NA')
