COPY airport.airports FROM STDIN (FORMAT csv, HEADER, NULL 'NA')
