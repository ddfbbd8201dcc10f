"""What the bands of scenes hold, pixel by pixel."""
