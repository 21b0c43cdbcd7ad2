"""``make race``: the same work by Headwater and by its peers, on the same machine and the same Postgres."""
