"""Two applications from one configuration file: see `serve.yaml`."""
