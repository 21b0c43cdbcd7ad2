"""How views are driven, whatever their store: one class for each kind of transform."""
