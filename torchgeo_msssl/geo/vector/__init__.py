"""Vector files and the burning of their geometries."""
