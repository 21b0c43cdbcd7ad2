"""Orders: a saga across four services, each with a database of its own."""
