"""Maps made by any code, scored into a record like any run's."""
