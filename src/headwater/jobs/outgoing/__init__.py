"""What leaves for other people's endpoints: signed, to addresses that were checked."""
