"""Serve Python models and microservices: decorate a class, bind it, run it, call it."""

__version__ = "0.1.0"
