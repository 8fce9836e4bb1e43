"""Autoscaling policies against traces of arrivals, in virtual time."""
