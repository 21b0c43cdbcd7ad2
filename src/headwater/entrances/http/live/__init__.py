"""Live channels: events and changed rows of views, as they come."""
