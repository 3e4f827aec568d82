"""Where things are kept: tables, time, the feature store and SQL. Imports nothing else of nightshift."""
