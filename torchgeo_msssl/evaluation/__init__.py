"""Measurement of what encoders have learned."""
