"""What contestants run, each in a process of its own environment: nothing here imports Headwater or a peer at the top."""
