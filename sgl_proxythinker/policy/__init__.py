"""What may come in: server arguments, environment, routes, bodies and fields, each classified."""
