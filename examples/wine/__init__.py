"""Red wine: train models that tell the good ones, serve each, and let them vote."""
